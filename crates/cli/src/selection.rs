//! Which checkpoints are meant.

use larder_checkpoint::{Checkpoint, CheckpointStore, Error};

use crate::cli::Selected;
use crate::failure::Failure;

/// One checkpoint that is known to be there, by its place. Opening it may still fail.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) dataset: String,
    pub(crate) generation: u64,
    pub(crate) opened: Result<Checkpoint, Error>,
}

/// Is it the address of one checkpoint, and not of a store?
fn is_of_checkpoint(address: &str) -> bool {
    let commits = address.strip_suffix(".json").and_then(|address| address.rsplit_once('/'));
    commits.is_some_and(|(commits, _)| commits.ends_with("/commits"))
}

impl Selected {
    /// Opens the one checkpoint that is meant.
    pub(crate) fn open(&self) -> Result<Checkpoint, Failure> {
        let Some(name) = &self.name else {
            if is_of_checkpoint(&self.address) {
                return Ok(Checkpoint::open(&self.address)?);
            }
            let usage = "which dataset? Name one after the address, or give the address of a checkpoint";
            return Err(Failure::Usage(usage.to_owned()));
        };
        self.refuse_double_name()?;
        let store = CheckpointStore::open(&self.address)?;
        match self.generation {
            Some(generation) => Ok(store.open_generation(name, generation)?),
            None => store.latest(name)?.ok_or_else(|| no_checkpoint(&store, Some(name))),
        }
    }

    /// All checkpoints that are meant, by dataset and generation; never none. One that is removed meanwhile is left out.
    pub(crate) fn open_all(&self, newest_alone: bool) -> Result<Vec<Found>, Failure> {
        if self.name.is_none() && is_of_checkpoint(&self.address) {
            let checkpoint = Checkpoint::open(&self.address)?;
            return Ok(vec![Found::opened(checkpoint)]);
        }
        self.refuse_double_name()?;
        let store = CheckpointStore::open(&self.address)?;
        let datasets = self.name.as_ref().map_or_else(|| store.datasets(), |name| Ok(vec![name.clone()]))?;
        let mut found = Vec::new();
        for dataset in datasets {
            let mut generations = match self.generation {
                Some(generation) => vec![generation],
                None => store.generations(&dataset)?,
            };
            if newest_alone {
                generations.drain(..generations.len().saturating_sub(1));
            }
            for generation in generations {
                let opened = store.open_generation(&dataset, generation);
                if !matches!(opened, Err(Error::NotFound { .. })) || self.generation.is_some() {
                    found.push(Found { dataset: dataset.clone(), generation, opened });
                }
            }
        }
        if found.is_empty() {
            return Err(no_checkpoint(&store, self.name.as_deref()));
        }
        Ok(found)
    }

    fn refuse_double_name(&self) -> Result<(), Failure> {
        if self.name.is_some() && is_of_checkpoint(&self.address) {
            let usage = "the address is that of a checkpoint, which needs no dataset's name";
            return Err(Failure::Usage(usage.to_owned()));
        }
        Ok(())
    }
}

impl Found {
    fn opened(checkpoint: Checkpoint) -> Self {
        let dataset = checkpoint.manifest().dataset.clone();
        Self { dataset, generation: checkpoint.generation(), opened: Ok(checkpoint) }
    }
}

pub(crate) fn no_checkpoint(store: &CheckpointStore, dataset: Option<&str>) -> Failure {
    let of = dataset.map(|dataset| format!(" of {dataset}")).unwrap_or_default();
    Failure::NotFound(format!("there is no checkpoint{of} in {}", store.address()))
}

#[cfg(test)]
mod tests {
    use super::is_of_checkpoint;

    #[test]
    fn a_checkpoint_is_told_from_a_store() {
        assert!(is_of_checkpoint("/a/ranks/commits/00000000000000000001.json"));
        for store in ["/a", "/a/commits", "/a/x.json", "commits/1.json", ""] {
            assert!(!is_of_checkpoint(store), "{store}");
        }
    }
}
