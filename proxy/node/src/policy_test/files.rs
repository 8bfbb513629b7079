//! Finding and reading PolicyTest files.

use std::path::{Path, PathBuf};

use policy::Problem;

use super::{API_VERSION, KIND, format::PolicyTest, problem};

/// Largest PolicyTest file read, in bytes.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Folders are searched this deep.
const MAX_DEPTH: usize = 16;

/// Every `.yaml`, `.yml` and `.json` file among the paths, folders searched through, in order of name.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Problem> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            search(path, 0, &mut files)?;
            if files.len() == before {
                return Err(problem(path, "", "no .yaml, .yml or .json file in this folder"));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let failed = |error: std::io::Error| problem(folder, "", error.to_string());
    if depth > MAX_DEPTH {
        return Err(problem(folder, "", "the folders are nested too deeply"));
    }
    let mut entries = std::fs::read_dir(folder)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed)?;
    entries.sort();
    for path in entries {
        let kind = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            search(&path, depth + 1, files)?;
        } else if matches!(kind, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads one PolicyTest.
///
/// # Errors
/// What is wrong, with file, line and field.
pub fn read(file: &Path) -> Result<PolicyTest, Problem> {
    let failed = |error: std::io::Error| problem(file, "", error.to_string());
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(problem(
            file,
            "",
            format!("{size} bytes are more than a PolicyTest may have ({MAX_FILE_BYTES})"),
        ));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let test: PolicyTest = policy::manifest::from_str(&file.display().to_string(), &text)?;
    if test.api_version != API_VERSION {
        return Err(problem(file, "apiVersion", format!("`{}`: expected `{API_VERSION}`", test.api_version)));
    }
    if test.kind != KIND {
        return Err(problem(file, "kind", format!("`{}`: expected `{KIND}`", test.kind)));
    }
    Ok(test)
}
