//! Getting what servers run on, once: it stays in the target directory.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Server;
use crate::error::Error;
use crate::project::Project;
use crate::run::{Run, quoted};

/// Hadoop reflects on these.
const JAVA_OPTIONS: &str = "-Xmx512m -XX:+UseSerialGC \
     --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.io=ALL-UNNAMED";

/// Starts a server: `serve PORT` for S3, `serve PORT DIRECTORY` for HDFS.
pub(crate) fn serve_script(project: &Project, server: Server) -> PathBuf {
    server.directory(project).join("serve")
}

/// Downloads what is not there, and writes the script.
pub(crate) fn install(project: &Project, server: Server) -> Result<(), Error> {
    let sources = project.root.join("xtask/servers");
    let directory = server.directory(project);
    let command = match server {
        Server::S3 => {
            let venv = directory.join("venv");
            install_once(&venv, &sources.join("requirements.txt"), python)?;
            format!("{} {}", quoted(venv.join("bin/python")), quoted(sources.join("moto_s3.py")))
        }
        Server::Hdfs => {
            let jars = directory.join("jars");
            install_once(&jars, &sources.join("pom.xml"), maven)?;
            let main = sources.join("MiniHdfs.java");
            format!("{} {JAVA_OPTIONS} -cp {} {}", quoted(java()), quoted(jars.join("*")), quoted(main))
        }
    };
    let script = serve_script(project, server);
    let written = fs::write(&script, format!("#!/bin/sh\nexec {command} \"$@\"\n"))
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)));
    written.map_err(|source| Error::File { action: "write", path: script, source })
}

/// Fills a directory from a list of what belongs there, unless it was filled from the same list before.
fn install_once(
    directory: &Path,
    list: &Path,
    fill: fn(&Path, &Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    };
    let wanted = fs::read_to_string(list).map_err(failed("read", list))?;
    let stamp = directory.join("larder-installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(failed("clear", directory))?;
    }
    fill(directory, list)?;
    fs::write(&stamp, wanted).map_err(failed("write", &stamp))
}

fn python(venv: &Path, requirements: &Path) -> Result<(), Error> {
    if !Run::program("python3").args(["-c", "import venv, ensurepip"]).succeeds() {
        let remedy = "The S3 server is a Python program: install Python 3.11 or later with venv and pip.";
        return Err(Error::MissingTool { tool: "Python 3", remedy });
    }
    Run::program("python3").args(["-m", "venv"]).arg(venv).run_aside()?;
    let pip = Run::program(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet"]);
    pip.args(["--disable-pip-version-check", "--no-deps", "--requirement"]).arg(requirements).run_aside()
}

fn maven(jars: &Path, pom: &Path) -> Result<(), Error> {
    let remedy = "The HDFS server is a Java program: install a JDK, version 17 or later, and Maven.";
    if !Run::program(java()).arg("-version").succeeds() {
        return Err(Error::MissingTool { tool: "Java", remedy });
    }
    if !Run::program("mvn").arg("-version").succeeds() {
        return Err(Error::MissingTool { tool: "Maven", remedy });
    }
    let copy =
        Run::program("mvn").args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"]).arg(pom);
    let directory = format!("-DoutputDirectory={}", jars.display());
    copy.args(["dependency:copy-dependencies", "-DincludeScope=runtime", &directory]).run_aside()
}

fn java() -> PathBuf {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    home.map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"))
}
