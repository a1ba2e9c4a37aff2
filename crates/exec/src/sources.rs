//! Where datasets come from.

mod collection;
mod generate;
mod text;
