//! `fhirward test`: PolicyTest files, decided offline by the live code.

mod expect;
mod files;
pub mod format;
mod report;
mod request;
#[cfg(test)]
mod tests;
mod tokens;
mod world;

use std::path::{Path, PathBuf};

use policy::{Problem, Severity};

pub use files::read;
pub use report::{CaseReport, Forwarded, Mismatch, Report, TestReport};
pub use world::World;

/// `apiVersion` of a PolicyTest.
pub const API_VERSION: &str = "fhirward.dev/v1alpha1";
/// `kind` of a PolicyTest.
pub const KIND: &str = "PolicyTest";

/// Runs files and folders of PolicyTest files.
///
/// # Errors
/// Every file that cannot be read or parsed, and every manifest in it that cannot be used.
pub fn run(paths: &[PathBuf]) -> Result<Report, Vec<Problem>> {
    let mut report = Report::default();
    let mut problems = Vec::new();
    for file in files::find(paths).map_err(|problem| vec![problem])? {
        match run_file(&file) {
            Ok(test) => report.add(test),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(report) } else { Err(problems) }
}

fn run_file(file: &Path) -> Result<TestReport, Vec<Problem>> {
    let test = read(file).map_err(|problem| vec![problem])?;
    let world = World::build(&test, file, &[])?;
    let cases = test.cases.iter().map(|case| {
        let mut report = world.ask(case)?;
        expect::hold(case, &mut report);
        Ok(report)
    });
    Ok(TestReport {
        file: file.display().to_string(),
        name: test.metadata.name.clone(),
        cases: cases.collect::<Result<_, Vec<Problem>>>()?,
    })
}

/// A problem of a PolicyTest as a whole or of one of its fields.
fn problem(file: &Path, field: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem {
        severity: Severity::Error,
        code: "bad-policy-test",
        place: policy::Place { file: file.display().to_string().into(), line: 1, column: 1 },
        field: field.into(),
        object: None,
        message: message.into(),
    }
}
