//! What is demanded of each page. A page that is opened with `?check` sets `window.hydralora` to
//! `{ done, ok, message, data }` when it has checked itself (`web/pages/check.js`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::browser::Browser;

/// A page's check.
struct Check {
    name: &'static str,
    /// The page, with its query.
    page: &'static str,
    /// The most seconds that it may take.
    seconds: u64,
    /// What more is demanded of the page's data, and what there is to say about it.
    verify: fn(&Context<'_>, &Value) -> Result<String, String>,
}

/// What a demand may need.
struct Context<'a> {
    #[expect(dead_code, reason = "the training page's demand runs the native demo there")]
    root: &'a Path,
}

const CHECKS: &[Check] = &[Check { name: "index", page: "index.html?check", seconds: 30, verify: nothing_more }];

/// Runs all checks whose name contains `only`.
pub(super) fn run(root: &Path, address: SocketAddr, only: &str) -> Result<(), String> {
    let checks: Vec<&Check> = CHECKS.iter().filter(|check| check.name.contains(only)).collect();
    if checks.is_empty() {
        let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        return Err(format!("no check's name contains `{only}`; there are: {}", names.join(", ")));
    }
    let mut browser = Browser::open(root, address)?;
    println!("{}", browser.version());
    let context = Context { root };
    let mut failed = 0;
    for check in checks {
        let begin = Instant::now();
        let outcome = browser
            .visit(check.name, check.page, check.seconds)
            .and_then(|page| Ok((page.message, (check.verify)(&context, &page.data)?)));
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok((message, more)) => println!("ok      {:12} {seconds:6.1} s  {message}{more}", check.name),
            Err(message) => {
                failed += 1;
                println!("FAILED  {:12} {seconds:6.1} s  {message}", check.name);
            }
        }
    }
    println!("screenshots: {}", browser.pictures().display());
    if failed > 0 { Err(format!("{failed} pages failed their checks")) } else { Ok(()) }
}

/// The page's own word is enough.
fn nothing_more(_: &Context<'_>, _: &Value) -> Result<String, String> {
    Ok(String::new())
}
