//! Files and folders to text, and text to objects, within limits.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use policy::{Object, Place, Problem, manifest};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use crate::{ManifestLimits, codes};

/// Extensions of manifests in folders.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// How long after a change a file's times may not tell the next change (coarse file system clocks).
const UNSETTLED: Duration = Duration::from_secs(2);

/// A file that is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Named {
    path: PathBuf,
    /// Named itself, not found in a folder.
    explicit: bool,
}

/// A look at the files without reading them: which there are, and their sizes, times and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glance {
    files: Vec<(Named, Result<Stamp, io::ErrorKind>)>,
    problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Glance {
    pub(super) fn take(paths: &[PathBuf], limits: &ManifestLimits) -> Self {
        let (named, problems) = list(paths, limits);
        let files = named.into_iter().map(|named| {
            let stamp = fs::metadata(&named.path).map(|metadata| Stamp::of(&metadata));
            (named, stamp.map_err(|error| error.kind()))
        });
        Self { files: files.collect(), problems: problems.iter().map(ToString::to_string).collect() }
    }

    /// Whether some file changed so recently that a further change need not show in its times.
    pub(super) fn is_unsettled(&self) -> bool {
        let now = SystemTime::now();
        self.files.iter().any(|(_, stamp)| {
            let modified = stamp.as_ref().ok().and_then(|stamp| stamp.modified);
            modified.is_none_or(|time| now.duration_since(time).is_ok_and(|age| age < UNSETTLED))
        })
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What the files say.
#[derive(Debug)]
pub(super) struct Contents {
    files: Vec<(Named, String)>,
    problems: Vec<Problem>,
    max_objects: usize,
}

/// Objects, problems, and how many documents are no Kubernetes objects.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) objects: Vec<Object>,
    pub(super) problems: Vec<Problem>,
    pub(super) passed_over: usize,
    too_many: bool,
}

impl Contents {
    pub(super) fn read(paths: &[PathBuf], limits: &ManifestLimits) -> Self {
        let (named, mut problems) = list(paths, limits);
        let (mut files, mut left) = (Vec::new(), limits.total_bytes);
        for named in named {
            match read_text(&named.path, limits.file_bytes, left) {
                Ok(text) => {
                    left = left.saturating_sub(text.len() as u64);
                    files.push((named, text));
                }
                Err(error) => problems.push(unreadable(&named.path, &error.to_string())),
            }
        }
        Self { files, problems, max_objects: limits.objects }
    }

    /// The same for the same contents of the same files.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for (named, text) in &self.files {
            add(named.path.as_os_str().as_encoded_bytes());
            add(text.as_bytes());
        }
        for problem in &self.problems {
            add(problem.to_string().as_bytes());
        }
        hash.finalize().into()
    }

    pub(super) fn parse(&self) -> Parsed {
        let mut parsed = Parsed { problems: self.problems.clone(), ..Parsed::default() };
        for (named, text) in &self.files {
            let name = named.path.display().to_string();
            let (objects, problems) = manifest::parse(&name, text);
            let json = named.path.extension() == Some(OsStr::new("json"));
            if !problems.is_empty() && json && !named.explicit && is_something_else(text) {
                parsed.passed_over += 1;
                continue;
            }
            parsed.problems.extend(problems);
            parsed.objects.extend(objects);
            if parsed.objects.len() > self.max_objects && !parsed.too_many {
                parsed.too_many = true;
                let text = format!("more than {} objects (mesh.limits.objects)", self.max_objects);
                parsed.problems.push(problem(manifest::codes::TOO_MANY, &named.path, text));
            }
        }
        parsed
    }
}

/// A JSON document that does not even try to be a Kubernetes object (a FHIR resource, say).
fn is_something_else(text: &str) -> bool {
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text)
        .is_ok_and(|fields| !fields.contains_key("kind") && !fields.contains_key("apiVersion"))
}

/// The files that the paths name, folders taken apart, each once.
fn list(paths: &[PathBuf], limits: &ManifestLimits) -> (Vec<Named>, Vec<Problem>) {
    let (mut files, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for path in paths {
        let found = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => folder(path, limits.files).and_then(some),
            Ok(_) => Ok(vec![Named { path: path.clone(), explicit: true }]),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => files.extend(found.into_iter().filter(|named| {
                let real = fs::canonicalize(&named.path).unwrap_or_else(|_| named.path.clone());
                seen.insert(real)
            })),
            Err(error) => problems.push(unreadable(path, &error.to_string())),
        }
        if files.len() > limits.files {
            let text = format!("more than {} files (mesh.limits.files)", limits.files);
            problems.push(problem(manifest::codes::TOO_MANY, path, text));
            files.truncate(limits.files);
            break;
        }
    }
    (files, problems)
}

/// An emptied folder is rather a lost mount than the wish to have no policy left.
fn some(files: Vec<Named>) -> io::Result<Vec<Named>> {
    if files.is_empty() { Err(io::Error::other("the folder holds no manifests")) } else { Ok(files) }
}

/// The manifests of a folder, sorted by name. Hidden ones are editors' and ConfigMap mounts'.
fn folder(path: &Path, max_files: usize) -> io::Result<Vec<Named>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().first().is_none_or(|byte| *byte == b'.'));
        let fits =
            path.extension().and_then(OsStr::to_str).is_some_and(|extension| EXTENSIONS.contains(&extension));
        // A link that leads nowhere stays: it is an error, not an absent policy.
        if hidden || !fits || fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        files.push(Named { path, explicit: false });
        if files.len() > max_files {
            break;
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path, file_bytes: u64, left: u64) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    let limit = file_bytes.min(left);
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(if limit == file_bytes {
            format!("more than {file_bytes} bytes (mesh.limits.fileBytes)")
        } else {
            "all files together are more than mesh.limits.totalBytes".to_owned()
        }));
    }
    // kubectl takes no such file either; whoever wants no policy left removes it, or says so in a
    // comment. A file that is just being written, or that a full disk has cut, is empty too.
    if bytes.trim_ascii().is_empty() {
        return Err(io::Error::other("the file is empty"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

fn unreadable(path: &Path, text: &str) -> Problem {
    problem(codes::UNREADABLE, path, format!("cannot be read: {text}"))
}

fn problem(code: &'static str, path: &Path, text: String) -> Problem {
    let place = Place { file: path.display().to_string().into(), line: 1, column: 1 };
    Problem::error(code, place, "", text)
}
