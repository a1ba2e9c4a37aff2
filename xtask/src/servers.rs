//! `cargo xtask servers`: S3 and HDFS on loopback ports, for tests and for people.

mod install;
mod process;
mod server;
mod start;
mod state;

use std::env;

use crate::cli::{ServersAction, ServersOptions};
use crate::error::Error;
use crate::project::Project;
use crate::run::quoted;
use crate::table::print_table;

pub(crate) use server::Server;
use start::{Started, Tied};
use state::State;

/// Tests that find no server fail when this is set.
pub(crate) const REQUIRE: &str = "LARDER_TEST_REQUIRE_SERVERS";

pub(crate) fn run(project: &Project, options: &ServersOptions) -> Result<(), Error> {
    let servers = |asked: &[Server]| if asked.is_empty() { Server::ALL.to_vec() } else { asked.to_vec() };
    match &options.action {
        ServersAction::Start { servers: asked } => {
            for server in servers(asked) {
                let url = match start::start(project, server)? {
                    Started::Now(tied) => tied.stay()?,
                    Started::Before(url) => url,
                };
                let serve = install::serve_script(project, server);
                for (variable, value) in
                    server.variables(&url, &serve).into_iter().chain(server.for_people(&url))
                {
                    println!("export {variable}={}", quoted(value));
                }
            }
            Ok(())
        }
        ServersAction::Stop { servers: asked } => servers(asked).into_iter().try_for_each(|server| {
            let was_running = state::stop(&server.directory(project))?;
            eprintln!("{server}: {}", if was_running { "stopped" } else { "not running" });
            Ok(())
        }),
        ServersAction::Status { servers: asked } => {
            let rows = servers(asked).into_iter().map(|server| row(project, server));
            print_table(&["server", "state", "address", "process", "log"], rows);
            Ok(())
        }
    }
}

fn row(project: &Project, server: Server) -> Vec<String> {
    let directory = server.directory(project);
    let state = State::load(&directory).filter(State::is_alive);
    let word = match &state {
        None => "stopped",
        Some(State { url: None, .. }) => "starting",
        Some(_) => "running",
    };
    let pid = state.as_ref().map(|state| state.pid.to_string());
    let log = state.as_ref().map(|_| State::log(&directory).display().to_string());
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let url = state.and_then(|state| state.url);
    vec![server.to_string(), word.to_owned(), cell(url), cell(pid), cell(log)]
}

/// What tests are to know of servers. Those that were started for them stop when this drops, or when the process ends
/// in whatever way.
pub(crate) struct ForTests {
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Which could not be started, and why.
    pub(crate) missing: Vec<(Server, Error)>,
    _started: Vec<Tied>,
}

/// Starts what this machine can run and is not named by a variable or running already.
pub(crate) fn for_tests(project: &Project) -> ForTests {
    let mut found = ForTests { variables: Vec::new(), missing: Vec::new(), _started: Vec::new() };
    for server in Server::ALL {
        if env::var_os(server.variable()).is_some() {
            continue;
        }
        let url = match start::start(project, server) {
            Ok(Started::Before(url)) => url,
            Ok(Started::Now(tied)) => {
                let url = tied.url().to_owned();
                found._started.push(tied);
                url
            }
            Err(e) => {
                found.missing.push((server, e));
                continue;
            }
        };
        found.variables.extend(server.variables(&url, &install::serve_script(project, server)));
    }
    found
}
