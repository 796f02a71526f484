//! The lines that are printed: one a measure.

use std::fmt::Display;
use std::process::ExitCode;

/// What a ratio must keep to.
#[derive(Clone, Copy)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
    /// For information.
    None,
}

/// Prints each line at once, and remembers whether any ratio missed its limit.
#[derive(Default)]
pub struct Report {
    missed: bool,
}

impl Report {
    pub fn ratio(&mut self, name: &str, ratio: f64, limit: Limit, figures: impl Display) {
        let (limit, verdict) = match limit {
            Limit::AtLeast(floor) if ratio < floor => (format!(">= {floor}"), "BELOW"),
            Limit::AtMost(ceiling) if ratio > ceiling => (format!("<= {ceiling}"), "ABOVE"),
            Limit::AtLeast(floor) => (format!(">= {floor}"), "ok"),
            Limit::AtMost(ceiling) => (format!("<= {ceiling}"), "ok"),
            Limit::None => ("-".into(), "-"),
        };
        self.missed |= !matches!(verdict, "ok" | "-");
        println!("{name:<44} {ratio:>6.3}  {limit:<7} {verdict:<5}  {figures}");
    }

    /// Of our seconds and those of one of MongoDB's tools, if it is there.
    pub fn against(&mut self, name: &str, ours: f64, theirs: Option<f64>, limit: Limit) {
        match theirs {
            Some(theirs) => self.ratio(name, ours / theirs, limit, format!("{ours:.1} s and {theirs:.1} s")),
            None => println!("{name:<44} {:>6}  the tool is not on PATH", "-"),
        }
    }

    pub fn status(&self) -> ExitCode {
        ExitCode::from(u8::from(self.missed))
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that `share` of the values are not above.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values[place.clamp(1, values.len()) - 1]
}
