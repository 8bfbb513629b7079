//! Request targets: whatever a normaliser could get wrong.

use super::words::Words;
use crate::oracle::dice::Dice;

/// Segments and parts of segments: dot segments in every spelling, parameters, escapes that are not one, escapes of
/// what need not and of what must not be escaped, bytes that have no place in a target.
const ATOMS: &[&[u8]] = &[
    b"a",
    b"b",
    b"t",
    b"admin",
    b"fhir",
    b"Patient",
    b"1",
    b"Observation",
    b"$everything",
    b".",
    b"..",
    b"...",
    b"%2e",
    b"%2E",
    b"%2e%2e",
    b".%2e",
    b"%2E.",
    b"..;",
    b"..;x=y",
    b".;",
    b".;x",
    b";",
    b"a;b=c",
    b";a",
    b"..%3b",
    b"%2e%2e;x",
    b"%3Bjsessionid=1",
    b"Observation;x=y",
    b"a..",
    b"..a",
    b".a",
    b"a.",
    b"%2f",
    b"%2F",
    b"%5c",
    b"%5C",
    b"\\",
    b"..\\",
    b"\\..",
    b"%252f",
    b"%252F",
    b"%252e",
    b"%255c",
    b"%25",
    b"%2",
    b"%",
    b"%zz",
    b"%%",
    b"%2%65",
    b"%2%66",
    b"%%36%35",
    b"%61",
    b"%41",
    b"%7e",
    b"%2d",
    b"%5f",
    b"%20",
    b"%7f",
    b"%01",
    b"%0a",
    b"%0d%0a",
    b"%09",
    b"%c0%ae",
    b"%c0%af",
    b"%e0%80%ae",
    b"%ff",
    b"%C3%A9",
    b"\xc3\xa9",
    b"\xff",
    b"\x80",
    b"|",
    b"^",
    b"{",
    b"}",
    b"<",
    b">",
    b"\"",
    b"`",
    b"~",
    b"!",
    b"$",
    b"&",
    b"'",
    b"(",
    b")",
    b"*",
    b"+",
    b",",
    b":",
    b"=",
    b"@",
    b"[",
    b"]",
    b"%3c",
    b"%7C",
    b"%22",
    b"%5e",
    b"%60",
    b"%7b",
    b"%2b",
    b"%3a",
    b"%3D",
    b"%40",
    b"%21",
    b"%23",
    b"%3f",
    b"%26",
    b"%3Fsubject",
    b"%00",
    b"a.html",
    b"_history",
    b"_search",
    b"metadata",
    b"x.y~z-_",
];
const SEPARATORS: &[&[u8]] =
    &[b"/", b"/", b"/", b"/", b"/", b"//", b"///", b"", b"\\", b"%2f", b"%5c", b"/./", b"/../"];
const BEGINNINGS: &[&[u8]] = &[
    b"",
    b"a",
    b"\\",
    b"//",
    b"http://h.example/",
    b"http://h.example",
    b"*",
    b"?",
    b"#",
    b";",
    b"%2f",
    b".",
    b"/..",
    b"http:/",
    b"HTTP://h.example/",
    b"https://h.example/",
    b"http://other.example/",
    b"http://u@h.example/",
    b"/?",
    b"/#",
];
const CONTROLS: &[&[u8]] = &[b"\x01", b"\t", b" ", b"\x7f", b"\x1f", b"\x0b", b"\x00"];

pub(super) fn target(dice: &mut Dice, words: &Words) -> Vec<u8> {
    let mut target = if !words.paths.is_empty() && dice.percent(65) {
        let value = dice.one(&words.paths).clone();
        let path = fill(dice, &value);
        match dice.below(10) {
            0..=3 => path,
            4 => again(dice, path),
            _ => disguise(dice, path),
        }
    } else {
        random(dice)
    };
    query(dice, &mut target);
    if dice.percent(4) {
        target.push(b'#');
        let fragment = [dice.pick(ATOMS), dice.pick(&[b"", b"/", b"?x"])].concat();
        target.extend_from_slice(&fragment);
    }
    if dice.percent(2) {
        let at = dice.below(target.len() + 1);
        let control = dice.pick(CONTROLS).to_vec();
        target.splice(at..at, control);
    }
    target
}

/// A path that a value asks for, or one nearby.
fn fill(dice: &mut Dice, value: &str) -> Vec<u8> {
    let rest: &[&str] = &["", "a", "a/b", "a/b/c", "/", "a=b", "*", "%61", "x/", "[", "a;b", "%2fa"];
    let segment: &[&str] =
        &["a", "Patient", "1", "", "a.b", "a=b", "*", "%5b", "[", "a,b", "!$&'()+", "~", "%zz", ".."];
    let mut path = value.replace("{**}", dice.pick(rest));
    while path.contains("{*}") {
        path = path.replacen("{*}", dice.pick(segment), 1);
    }
    if path.contains('*') && dice.percent(90) {
        path = path.replace('*', dice.pick(&["", "x", "/a", "a/b", "%2f", ".html"]));
    }
    if !path.starts_with('/') && dice.percent(98) {
        path.insert(0, '/');
    }
    path.into_bytes()
}

/// The same path, written so that a server may read it as before.
fn disguise(dice: &mut Dice, mut path: Vec<u8>) -> Vec<u8> {
    for _ in 0..dice.between(1, 3) {
        let slashes: Vec<usize> =
            path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
        match dice.below(9) {
            0..=2 if !path.is_empty() => {
                let at = dice.below(path.len());
                let byte = path[at];
                let escape = match dice.below(6) {
                    0 => format!("%25{byte:02x}"),
                    1 | 2 => format!("%{byte:02X}"),
                    _ => format!("%{byte:02x}"),
                };
                path.splice(at..=at, escape.into_bytes());
            }
            3 | 4 if !slashes.is_empty() => {
                let at = *dice.one(&slashes);
                let inserted = dice.pick(&[
                    b"/x/..".as_slice(),
                    b"/.",
                    b"/",
                    b"/..;",
                    b"/x/..;y",
                    b"/%2e",
                    b"/x/%2e%2e",
                    b"\\",
                    b"/;x=y",
                    b"/.;",
                ]);
                path.splice(at..at, inserted.to_vec());
            }
            5 if !slashes.is_empty() => {
                let at = *dice.one(&slashes);
                path.splice(at..=at, dice.pick(&[b"\\".as_slice(), b"%2f", b"%2F", b"%5c", b"//"]).to_vec());
            }
            6 if !path.is_empty() => {
                let at = dice.below(path.len());
                path[at] = if path[at].is_ascii_lowercase() {
                    path[at].to_ascii_uppercase()
                } else {
                    path[at].to_ascii_lowercase()
                };
            }
            _ => {
                let at = dice.below(path.len() + 1);
                path.splice(at..at, dice.pick(ATOMS).to_vec());
            }
        }
    }
    path
}

/// Something before or behind.
fn again(dice: &mut Dice, path: Vec<u8>) -> Vec<u8> {
    match dice.below(3) {
        0 => [
            path,
            dice.pick(&[b"/".as_slice(), b"x", b"/x", b";x", b"%20", b"/.", b"/..", b"//", b"?"]).to_vec(),
        ]
        .concat(),
        1 => [dice.pick(&[b"/".as_slice(), b"/x", b"/x/..", b"/.", b"x"]).to_vec(), path].concat(),
        _ => path.get(..path.len().saturating_sub(1)).unwrap_or_default().to_vec(),
    }
}

fn random(dice: &mut Dice) -> Vec<u8> {
    let mut target = if dice.percent(97) { b"/".to_vec() } else { dice.pick(BEGINNINGS).to_vec() };
    for _ in 0..dice.between(0, 5) {
        target.extend_from_slice(dice.pick(ATOMS));
        if dice.percent(25) {
            target.extend_from_slice(dice.pick(ATOMS));
        }
        target.extend_from_slice(dice.pick(SEPARATORS));
    }
    target
}

fn query(dice: &mut Dice, target: &mut Vec<u8>) {
    if !dice.percent(22) {
        return;
    }
    target.push(b'?');
    for _ in 0..dice.between(0, 3) {
        let parts: &[&[u8]] = &[
            b"subject=1",
            b"&",
            b"name=x",
            b"=",
            b"/",
            b"//",
            b"?",
            b"../",
            b"+",
            b"a=%41%2f",
            b"&&",
            b"_method=DELETE",
            b";",
        ];
        let part = if dice.percent(75) { dice.pick(parts) } else { dice.pick(ATOMS) };
        target.extend_from_slice(part);
    }
}
