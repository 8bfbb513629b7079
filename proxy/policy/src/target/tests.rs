#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{
    Normalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes, None as Raw},
    TargetError, TargetRules, canonicalize, check_headers,
};

fn rules(normalization: Normalization, strict: bool) -> TargetRules {
    TargetRules { normalization, strict }
}

fn envoy(mode: Normalization, raw: &str) -> Result<String, TargetError> {
    canonicalize(raw, rules(mode, false)).map(|target| target.path_and_query())
}

fn strict(raw: &str) -> Result<String, TargetError> {
    canonicalize(raw, rules(Base, true)).map(|target| target.path_and_query())
}

#[test]
fn each_mode_treats_targets_as_envoy_does() {
    // raw, NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES
    let table = [
        ("/a/b", "/a/b", "/a/b", "/a/b", "/a/b"),
        ("/", "/", "/", "/", "/"),
        ("/a/./b", "/a/./b", "/a/b", "/a/b", "/a/b"),
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/../../b", "/../../b", "/b", "/b", "/b"),
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/a/.", "/a/.", "/a/", "/a/", "/a/"),
        ("/a/...", "/a/...", "/a/...", "/a/...", "/a/..."),
        ("/a/.b/..c/d..", "/a/.b/..c/d..", "/a/.b/..c/d..", "/a/.b/..c/d..", "/a/.b/..c/d.."),
        ("/a/%2e%2E/b", "/a/%2e%2E/b", "/b", "/b", "/b"),
        ("/a/%2e./b", "/a/%2e./b", "/b", "/b", "/b"),
        ("/a%2Eb", "/a%2Eb", "/a.b", "/a.b", "/a.b"),
        ("/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b"),
        ("/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"),
        ("/%61%2D%5f%7e", "/%61%2D%5f%7e", "/a-_~", "/a-_~", "/a-_~"),
        ("//a///b//", "//a///b//", "//a///b//", "/a/b/", "/a/b/"),
        ("///", "///", "///", "//", "//"),
        ("/a%2fb%2Fc", "/a%2fb%2Fc", "/a%2fb%2Fc", "/a%2fb%2Fc", "/a/b/c"),
        ("/a%5cb%5C..", "/a%5cb%5C..", "/a%5cb%5C..", "/a%5cb%5C..", "/a/"),
        ("/a/..%2fb", "/a/..%2fb", "/a/..%2fb", "/a/..%2fb", "/b"),
        // One decoding only.
        ("/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"),
        ("/%25%32%65", "/%25%32%65", "/%252e", "/%252e", "/%252e"),
        // Decoding never makes an escape that was not there.
        ("/%2%65", "/%2%65", "/%252e", "/%252e", "/%252e"),
        ("/%%61a", "/%%61a", "/%25aa", "/%25aa", "/%25aa"),
        ("/%%36%35", "/%%36%35", "/%2565", "/%2565", "/%2565"),
        ("/%%61g", "/%%61g", "/%ag", "/%ag", "/%ag"),
        ("/%%61%2f", "/%%61%2f", "/%a%2f", "/%a%2f", "/%a/"),
        ("/%zz%61", "/%zz%61", "/%zza", "/%zza", "/%zza"),
        ("/aa%/../bb0%61%62", "/aa%/../bb0%61%62", "/bb0ab", "/bb0ab", "/bb0ab"),
        // Malformed escapes pass.
        ("/%zz/%", "/%zz/%", "/%zz/%", "/%zz/%", "/%zz/%"),
        // Overlong UTF-8 stays.
        ("/%c0%ae%c0%ae/a", "/%c0%ae%c0%ae/a", "/%c0%ae%c0%ae/a", "/%c0%ae%c0%ae/a", "/%c0%ae%c0%ae/a"),
        // Parameters: of dot segments resolved, others left.
        ("/x/..;y/admin", "/x/..;y/admin", "/admin", "/admin", "/admin"),
        ("/..;/admin", "/..;/admin", "/admin", "/admin", "/admin"),
        ("/x/.;y/admin", "/x/.;y/admin", "/x/admin", "/x/admin", "/x/admin"),
        ("/a;b=c/d", "/a;b=c/d", "/a;b=c/d", "/a;b=c/d", "/a;b=c/d"),
        // Raw bytes that are escaped.
        (
            "/a|^{}<>\"`b",
            "/a|^{}<>\"`b",
            "/a%7C%5E%7B%7D%3C%3E%22%60b",
            "/a%7C%5E%7B%7D%3C%3E%22%60b",
            "/a%7C%5E%7B%7D%3C%3E%22%60b",
        ),
        ("/é", "/é", "/%C3%A9", "/%C3%A9", "/%C3%A9"),
        (
            "/a[b]!$&'()*+,:=@",
            "/a[b]!$&'()*+,:=@",
            "/a[b]!$&'()*+,:=@",
            "/a[b]!$&'()*+,:=@",
            "/a[b]!$&'()*+,:=@",
        ),
        // The query is left alone.
        (
            "/a/../b?x=/../y//z%2f;w|",
            "/a/../b?x=/../y//z%2f;w|",
            "/b?x=/../y//z%2f;w|",
            "/b?x=/../y//z%2f;w|",
            "/b?x=/../y//z%2f;w|",
        ),
        ("/a?", "/a?", "/a?", "/a?", "/a?"),
        ("*", "*", "*", "*", "*"),
    ];
    for (raw, none, base, merge, decode) in table {
        for (mode, want) in
            [(Raw, none), (Base, base), (MergeSlashes, merge), (DecodeAndMergeSlashes, decode)]
        {
            assert_eq!(envoy(mode, raw).as_deref(), Ok(want), "{raw} under {mode:?}");
        }
    }
}

#[test]
fn bug_decoding_behind_a_lone_percent_made_dot_segments_that_no_policy_saw() {
    for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
        assert_eq!(envoy(mode, "/x/%2%65%2%65/admin").as_deref(), Ok("/x/%252e%252e/admin"));
        assert_eq!(envoy(mode, "/x%2%66admin").as_deref(), Ok("/x%252fadmin"));
        assert_eq!(envoy(mode, "/x%5%63admin").as_deref(), Ok("/x%255cadmin"));
    }
}

#[test]
fn nul_is_refused_but_in_none() {
    assert_eq!(envoy(Raw, "/a%00b").as_deref(), Ok("/a%00b"));
    for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
        assert_eq!(envoy(mode, "/a%00b"), Err(TargetError::Nul));
        assert_eq!(envoy(mode, "/a%%0000"), Err(TargetError::Nul));
    }
    assert_eq!(envoy(Raw, "/a\0b"), Err(TargetError::Nul));
}

#[test]
fn other_forms_are_refused() {
    for raw in ["", "a", "\\admin", "http://h/x", "h:443", "?x", "**", "#"] {
        assert_eq!(envoy(Base, raw), Err(TargetError::NotOriginForm), "{raw:?}");
    }
    for raw in ["/a b", "/a\r\nX: y", "/a?b\nc", "/\u{7f}"] {
        assert_eq!(envoy(Raw, raw), Err(TargetError::NotNormalisable), "{raw:?}");
    }
}

#[test]
fn cve_2021_39156_a_fragment_is_cut_before_anything_is_matched() {
    for mode in [Raw, Base, MergeSlashes, DecodeAndMergeSlashes] {
        assert_eq!(envoy(mode, "/admin#").as_deref(), Ok("/admin"));
        assert_eq!(envoy(mode, "/admin#/../x?y").as_deref(), Ok("/admin"));
        assert_eq!(envoy(mode, "/admin?a=b#c").as_deref(), Ok("/admin?a=b"));
    }
}

#[test]
fn cve_2020_8595_the_path_is_apart_from_the_query() {
    let target = canonicalize("/admin?x=1?y", rules(Base, false)).unwrap();
    assert_eq!((target.path(), target.query()), ("/admin", Some("x=1?y")));
    assert_eq!(target.as_str(), "/admin?x=1?y");
}

#[test]
fn cve_2021_31920_and_29492_slashes() {
    assert_eq!(envoy(MergeSlashes, "//admin").as_deref(), Ok("/admin"));
    assert_eq!(envoy(DecodeAndMergeSlashes, "/%2Fadmin").as_deref(), Ok("/admin"));
    assert_eq!(envoy(DecodeAndMergeSlashes, "/x%5C..%5Cadmin").as_deref(), Ok("/admin"));
    assert_eq!(strict("/x%2f..%2fadmin"), Err(TargetError::EncodedSlash));
    assert_eq!(strict("/x%5Cadmin"), Err(TargetError::EncodedSlash));
    assert_eq!(strict("/x\\admin"), Err(TargetError::Backslash));
}

#[test]
fn cve_2026_73553_matrix_parameters() {
    for raw in ["/fhir/Patient;x=y", "/fhir;/Patient", "/fhir/Patient%3Bx=y", "/..;/admin", "/a/%3b"] {
        assert_eq!(strict(raw), Err(TargetError::MatrixParameter), "{raw}");
    }
    // In the query a semicolon is data.
    assert_eq!(strict("/fhir/Patient?name=a;b").as_deref(), Ok("/fhir/Patient?name=a;b"));
}

#[test]
fn strict_refuses_what_servers_read_differently() {
    use TargetError::{DoubleEncoding, MethodOverride, NotNormalisable, Nul};
    for (raw, error) in [
        ("/a%00", Nul),
        ("/a%252fb", DoubleEncoding),
        ("/a%2525", DoubleEncoding),
        ("/%25%32%66", DoubleEncoding),
        ("/%252%65", DoubleEncoding),
        ("/%25a%62", DoubleEncoding),
        ("/%zz", NotNormalisable),
        ("/a%", NotNormalisable),
        ("/a%2", NotNormalisable),
        ("/a%0d%0aX", NotNormalisable),
        ("/%c0%ae%c0%ae/a", NotNormalisable),
        ("/%ff", NotNormalisable),
        ("/a?_method=PUT", MethodOverride),
        ("/a?x&_Method=PUT", MethodOverride),
        ("/a?x=1;_method=PUT", MethodOverride),
        ("/a?%5fmethod=PUT", MethodOverride),
    ] {
        assert_eq!(strict(raw), Err(error), "{raw}");
    }
    for (raw, want) in [
        ("/a/%2e%2e/b", "/b"),
        ("/100%25", "/100%25"),
        ("/a%25zz", "/a%25zz"),
        ("/%C3%A9", "/%C3%A9"),
        ("/Patient?name=%252f%00", "/Patient?name=%252f%00"),
        ("/Patient?x_method=1", "/Patient?x_method=1"),
        ("//a", "//a"),
        ("*", "*"),
    ] {
        assert_eq!(strict(raw).as_deref(), Ok(want), "{raw}");
    }
}

#[test]
fn strict_refuses_dot_segments_that_none_would_leave() {
    for raw in ["/a/../b", "/a/%2e%2e/b", "/a/.%2E", "/./a"] {
        assert_eq!(canonicalize(raw, rules(Raw, true)), Err(TargetError::NotNormalisable), "{raw}");
    }
    assert!(canonicalize("/a/..b/c.d", rules(Raw, true)).is_ok());
}

#[test]
fn override_headers_are_refused_when_strict() {
    for name in
        ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "x-rewrite-url"]
    {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("PUT"));
        assert_eq!(check_headers(&headers, rules(Base, true)), Err(TargetError::MethodOverride));
        assert_eq!(check_headers(&headers, rules(Base, false)), Ok(()));
    }
    assert_eq!(check_headers(&HeaderMap::new(), rules(Base, true)), Ok(()));
}

#[test]
fn a_parameter_goes_with_all_its_copies() {
    let without = |raw: &str| {
        canonicalize(raw, rules(Base, true)).unwrap().without_parameter("access_token").path_and_query()
    };
    assert_eq!(without("/a?access_token=x"), "/a");
    assert_eq!(without("/a?b=1&access_token=x&c=2&access_token=y"), "/a?b=1&c=2");
    assert_eq!(without("/a?access%5Ftoken=x&b"), "/a?b");
    assert_eq!(without("/a?access_token&b="), "/a?b=");
    assert_eq!(without("/a"), "/a");
    assert_eq!(without("/a?my_access_token=1"), "/a?my_access_token=1");
}

fn raw_target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", "%3b", "%25", "%", "2", "f", "e", "a",
        "Z", "~", "%41", "%7e", "%zz", "%c3%a9", "%c0", "é", "{", "|", "=", "?", "&", "#", "_method", "%00",
        "%0a", "5", "c",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn mode() -> impl Strategy<Value = Normalization> {
    prop::sample::select(vec![Raw, Base, MergeSlashes, DecodeAndMergeSlashes])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What was judged is what any further canonicalisation would judge.
    #[test]
    fn a_strict_canonical_target_is_a_fixed_point(raw in raw_target(), mode in mode()) {
        if let Ok(once) = canonicalize(&raw, rules(mode, true)) {
            let twice = canonicalize(once.as_str(), rules(mode, true));
            prop_assert_eq!(twice.as_ref(), Ok(&once));
            // And none of the dangers is left in the path.
            let path = once.path();
            prop_assert!(!path.contains(';') && !path.contains('\\') && !path.contains('#'));
            prop_assert!(path == "*" || !path.split('/').any(|s| s == "." || s == ".."));
        }
    }

    /// Envoy's own result is a fixed point where no malformed escape and no `;` is about.
    #[test]
    fn an_envoy_canonical_target_is_a_fixed_point_without_tricks(
        raw in "(/|//|\\.|\\.\\.|%2e|%2f|a|b|%41|é|\\||\\?)*", mode in mode()
    ) {
        let raw = format!("/{raw}");
        let once = canonicalize(&raw, rules(mode, false)).unwrap();
        let twice = canonicalize(once.as_str(), rules(mode, false)).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn nothing_panics(raw in ".*", mode in mode(), strict in any::<bool>()) {
        let _ = canonicalize(&raw, rules(mode, strict));
    }
}
