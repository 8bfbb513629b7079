//! The kept corpus, file by file, through the targets: what a fuzzer found once stays found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{fs, path::Path};

/// Bytes of the whole corpus: it lies in git.
const CORPUS_BYTES: u64 = 300 * 1024;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn replay(target: fn(&[u8]), name: &str) {
    let mut files: Vec<_> = fs::read_dir(corpus().join(name))
        .unwrap_or_else(|error| panic!("no corpus of {name}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} files of {name}", files.len());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        // A failure tells its input by this line of the captured output.
        eprintln!("{}", file.display());
        target(&bytes);
    }
}

macro_rules! replays {
    ($($target:ident),*) => {
        $(
            #[test]
            fn $target() {
                replay(fuzz_targets::$target, stringify!($target));
            }
        )*

        #[test]
        fn the_corpus_is_small_and_of_these_targets() {
            let mut names: Vec<String> = fs::read_dir(corpus())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let mut known = vec![$(stringify!($target)),*];
            known.sort_unstable();
            assert_eq!(names, known);
            let files = names.iter().flat_map(|name| fs::read_dir(corpus().join(name)).unwrap());
            let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert!(bytes <= CORPUS_BYTES, "{bytes} bytes");
        }
    };
}

replays!(request_head, request_target, manifest, jwt, jwks, header_values, h2_frames);
