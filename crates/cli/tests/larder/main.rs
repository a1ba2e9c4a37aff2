//! The command line, as scripts and people use it: the built program on real stores.

#[cfg(test)]
mod cat;
#[cfg(test)]
mod copy;
#[cfg(test)]
mod list;
#[cfg(test)]
mod remove;
#[cfg(test)]
mod support;
#[cfg(test)]
mod verify;
