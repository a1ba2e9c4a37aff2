//! Which servers there are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::project::Project;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    /// moto: needs Python 3.11 with venv and pip.
    S3,
    /// Hadoop's mini cluster: needs a JDK 17 and Maven.
    Hdfs,
}

impl Server {
    pub(crate) const ALL: [Self; 2] = [Self::S3, Self::Hdfs];

    /// Where all of it is kept: what was downloaded, the log, what it serves.
    pub(crate) fn directory(self, project: &Project) -> PathBuf {
        project.target.join("servers").join(self.name())
    }

    /// The variable that tells tests where it is.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::S3 => "LARDER_TEST_S3",
            Self::Hdfs => "LARDER_TEST_HDFS",
        }
    }

    /// The variables that tests look at. `serve` is for those that kill their server, and so need one of their own.
    pub(crate) fn variables(self, url: &str, serve: &Path) -> [(&'static str, String); 2] {
        let serve_variable = match self {
            Self::S3 => "LARDER_TEST_S3_SERVE",
            Self::Hdfs => "LARDER_TEST_HDFS_SERVE",
        };
        [(self.variable(), url.to_owned()), (serve_variable, serve.display().to_string())]
    }

    /// What other clients look at.
    pub(crate) fn for_people(self, url: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::S3 => vec![
                ("AWS_ENDPOINT_URL", url.to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ACCESS_KEY_ID", "larder".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "larder".to_owned()),
            ],
            Self::Hdfs => Vec::new(),
        }
    }

    /// How long it may take to answer; a few seconds are usual.
    pub(crate) fn start_deadline(self) -> Duration {
        match self {
            Self::S3 => Duration::from_secs(60),
            Self::Hdfs => Duration::from_secs(180),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Hdfs => "hdfs",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
