//! Headless Chromium with its software WebGPU, driven by `browser.mjs`: a line of JSON for each page to visit, and
//! one for what came of it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hands::Hand;
use super::troubles::Spoilt;
use crate::implementation::npm::PLAYWRIGHT;
use crate::implementation::{create_directory, install};

/// Names of Chromium's program. Debian's package has the first.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

pub(super) struct Browser {
    child: Child,
    requests: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
    version: String,
    pictures: PathBuf,
}

/// A visit to a page, and what it waits for.
#[derive(Serialize)]
pub(super) struct Visit {
    pub name: &'static str,
    /// The page, with its query.
    pub page: &'static str,
    /// The most seconds that it may take.
    pub seconds: u64,
    /// What is wrong with its surroundings.
    pub spoilt: Option<Spoilt>,
    /// What somebody does there.
    pub hands: &'static [Hand],
    pub until: Until,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Until {
    /// It has checked itself.
    Checked,
    /// It explains what is wrong, in a sentence that begins so.
    Explained(&'static str),
    /// Everything is done.
    Done,
}

/// What a page said of itself.
#[derive(Deserialize)]
pub(super) struct Page {
    pub message: String,
    #[serde(default)]
    pub data: Value,
    /// The paths of the files that it loaded.
    #[serde(default)]
    pub loaded: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Started {
    version: String,
}

#[derive(Deserialize)]
struct Visited {
    ok: bool,
    #[serde(flatten)]
    page: Page,
}

impl Browser {
    pub(super) fn open(root: &Path, address: SocketAddr) -> Result<Self, String> {
        let program = program()?;
        let pictures = create_directory(&root.join("target/web-check"))?;
        let modules = PLAYWRIGHT.install(&root.join("target/tools"))?;
        let mut child = Command::new("node")
            .arg(root.join("xtask/src/web/browser.mjs"))
            .args([&modules.join(PLAYWRIGHT.name), &program, &pictures, root])
            .arg(format!("http://{address}/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("node could not be run: {error}"))?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("node has no pipes".to_owned());
        };
        let replies = BufReader::new(replies).lines();
        let mut browser = Self { child, requests, replies, version: String::new(), pictures };
        let started: Started = browser.reply()?;
        browser.version = started.version;
        Ok(browser)
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The folder of screenshots.
    pub(super) fn pictures(&self) -> &Path {
        &self.pictures
    }

    /// Visits a page, and takes its picture on a dark screen and on a light phone. What everyone may expect of a page is
    /// demanded of each.
    pub(super) fn visit(&mut self, visit: &Visit) -> Result<Page, String> {
        let request = serde_json::to_string(visit).map_err(|error| error.to_string())?;
        writeln!(self.requests, "{request}").map_err(|error| format!("the browser has ended: {error}"))?;
        let Visited { ok, page } = self.reply()?;
        if ok { Ok(page) } else { Err(page.message) }
    }

    fn reply<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, String> {
        let line = self.replies.next().ok_or("the browser has ended: see above")?;
        let line = line.map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("browser.mjs answered {line}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes the browser when nothing more can be asked.
        let _ = writeln!(self.requests, "null");
        let _ = self.child.wait();
    }
}

/// The path of Chromium's program, installed from Debian's package where there is none.
fn program() -> Result<PathBuf, String> {
    let find = || {
        let path = std::env::var_os("PATH")?;
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let mut all =
            PROGRAMS.into_iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        all.find(|program| program.is_file())
    };
    if let Some(program) = find() {
        return Ok(program);
    }
    install(&["chromium"]).map_err(|error| format!("There is no Chromium. {error}"))?;
    find().ok_or_else(|| "Chromium was installed, but is in no folder of PATH.".to_owned())
}
