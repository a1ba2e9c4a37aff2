//! Where the project is and what is in it.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::run::Run;

/// The workspace, as cargo sees it.
pub(crate) struct Project {
    pub(crate) root: PathBuf,
    /// Where cargo builds: CARGO_TARGET_DIR, or what its configuration says.
    pub(crate) target: PathBuf,
    packages: Vec<Value>,
}

impl Project {
    pub(crate) fn find() -> Result<Self, Error> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().unwrap_or(Path::new(".")).to_path_buf();
        // Asked from where we are, because a relative CARGO_TARGET_DIR is relative to that.
        let manifest = root.join("Cargo.toml");
        let metadata = Run::cargo(&["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
            .arg(manifest)
            .output()?;
        let bad = |problem: String| Error::Json { what: "the output of `cargo metadata`".into(), problem };
        let metadata: Value = serde_json::from_str(&metadata).map_err(|e| bad(e.to_string()))?;
        let target = metadata.get("target_directory").and_then(Value::as_str);
        let target = target.ok_or_else(|| bad("no target_directory".into()))?.into();
        let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self { root, target, packages })
    }

    /// Where the packages of the workspace are described.
    #[cfg(test)]
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().filter_map(|package| package.get("manifest_path")?.as_str())
    }

    /// The package of the workspace that has an example of this name.
    pub(crate) fn package_with_example(&self, example: &str) -> Option<&str> {
        let is_example = |target: &Value| {
            let kinds = target.get("kind").and_then(Value::as_array);
            target.get("name").and_then(Value::as_str) == Some(example)
                && kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "example"))
        };
        let has_it = |package: &&Value| {
            let targets = package.get("targets").and_then(Value::as_array);
            targets.is_some_and(|targets| targets.iter().any(is_example))
        };
        self.packages.iter().find(has_it)?.get("name").and_then(Value::as_str)
    }

    /// `cargo ARGS`, to be run at the root and to build into `target`.
    pub(crate) fn cargo(&self, args: &[&str]) -> Run {
        Run::cargo(args).dir(&self.root)
    }
}
