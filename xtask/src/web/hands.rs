//! What somebody does on a page, by keyboard alone: `browser.mjs` presses Tab until the element has the focus.

use serde::Serialize;

/// One thing that is done. Elements are named as in CSS.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hand {
    /// Goes to the element, and presses Enter.
    Press(&'static str),
    /// Goes to the element, and writes a text in place of what is there.
    Type(&'static str, &'static str),
    /// Goes to the element, which arrow keys can scroll from there.
    Scroll(&'static str),
    /// Gives the element a file of the project.
    Choose(&'static str, &'static str),
    /// Waits until the element's text contains this.
    See(&'static str, &'static str),
}
