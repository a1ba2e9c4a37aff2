//! The graph of datasets.
