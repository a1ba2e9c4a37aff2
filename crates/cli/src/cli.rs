//! What can be asked for.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::units::parse_duration;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a checkpoint is damaged
  2  the arguments make no sense
  3  something cannot be read, written or reached
  4  there is no such checkpoint
  5  not done: not confirmed, or another writer was first";

/// Looks at checkpoints, verifies, copies and removes them.
#[derive(Debug, Parser)]
#[command(name = "larder", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at checkpoints, verify, copy and remove them.
    ///
    /// A checkpoint store is named by its address: a path, or a URL such as file:///path. A checkpoint in it is named by
    /// its dataset and its generation; the newest, where none is given. The address of a single checkpoint, as `show`
    /// prints it, names all three.
    #[command(after_help = EXIT_CODES)]
    Checkpoint {
        #[command(subcommand)]
        action: Action,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List the datasets of a store with their newest checkpoint, or the checkpoints of one dataset.
    Ls(Ls),
    /// Show what a checkpoint consists of: its manifest.
    Show(Show),
    /// Read checkpoints to their last byte, and say what is damaged.
    ///
    /// All of the store, or of one dataset, unless a generation or --newest says less. Decodes no record: what is
    /// compared are the checksums of each chunk, each part and each manifest.
    #[command(after_help = EXIT_CODES)]
    Verify(Verify),
    /// Print the records of a checkpoint, partition by partition.
    ///
    /// Text is printed a line a record, with control characters escaped. Of records of a known length the bytes are
    /// shown in hexadecimal, of all others how many there are in each chunk and how it begins.
    Cat(Cat),
    /// Remove what attempts that were never committed have left behind: data, and uploads to S3 that were not finished.
    Cleanup(Cleanup),
    /// Remove checkpoints.
    Rm(Rm),
    /// Copy a checkpoint to another store, byte for byte, and verify the copy before it is committed.
    ///
    /// It becomes the next generation there, with an attempt of its own; parts, partitioner and record type are the
    /// same. What fails leaves nothing that a reader sees.
    #[command(after_help = EXIT_CODES)]
    Cp(Cp),
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The store.
    pub(crate) address: String,
    /// A dataset, to list its checkpoints.
    pub(crate) name: Option<String>,
    /// Print JSON: an array with an object a row.
    #[arg(long)]
    pub(crate) json: bool,
}

/// One checkpoint.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// The store, or a checkpoint.
    pub(crate) address: String,
    /// The dataset, unless the address is that of a checkpoint.
    pub(crate) name: Option<String>,
    /// Which of its checkpoints; the newest by default.
    #[arg(long, value_name = "N", requires = "name")]
    pub(crate) generation: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Print JSON: the manifest and its address.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Only the newest checkpoint of each dataset.
    #[arg(long, conflicts_with = "generation")]
    pub(crate) newest: bool,
    /// How many parts to read at the same time; as many as there are processors by default.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Print JSON: an array with an object a checkpoint.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Only this partition.
    #[arg(long, value_name = "N")]
    pub(crate) part: Option<u32>,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print JSON: an object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cleanup {
    /// The store.
    pub(crate) address: String,
    /// How old they must be, such as 36h, 90m or 7d. Less than the writers of the store have as their orphan grace (24h
    /// unless they say otherwise) may remove what is still being written, whose commit then fails.
    #[arg(long, value_name = "AGE", value_parser = parse_duration, default_value = "24h")]
    pub(crate) grace: Duration,
    /// Only list them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON: an array with an object an orphan.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(crate) struct Rm {
    /// The store.
    pub(crate) address: String,
    /// The dataset.
    pub(crate) name: String,
    /// Remove this checkpoint.
    #[arg(long, value_name = "N", group = "which")]
    pub(crate) generation: Option<u64>,
    /// Remove all but the newest so many.
    #[arg(long, value_name = "N", group = "which")]
    pub(crate) keep_last: Option<NonZeroUsize>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// The store to copy from, or a checkpoint.
    pub(crate) from: String,
    /// The store to copy to.
    pub(crate) to: String,
    /// The dataset, unless FROM is the address of a checkpoint.
    pub(crate) name: Option<String>,
    /// Which of its checkpoints; the newest by default.
    #[arg(long, value_name = "N", requires = "name")]
    pub(crate) generation: Option<u64>,
    /// What the dataset is to be called there; the same by default.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) new_name: Option<String>,
    /// How many parts to copy at the same time; as many as there are processors by default.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Print JSON: what was copied, and where to.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_make_sense_together() {
        super::Cli::command().debug_assert();
    }
}
