#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, time::Instant};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    action: Action,
    note: Option<String>,
    on: Option<bool>,
    #[serde(default)]
    ports: BTreeMap<u16, Located<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    paths: Option<Located<Vec<Located<String>>>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Action {
    #[default]
    Allow,
    Deny,
}

fn spec(body: &str) -> Result<Spec, Problem> {
    let text = format!("apiVersion: a/v1\nkind: K\nmetadata: {{name: demo}}\nspec:\n{body}");
    let (objects, problems) = parse("f.yaml", &text);
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    objects[0].field("spec").map(Option::unwrap)
}

fn complaint(body: &str) -> (&'static str, u32, u32, String, String) {
    let problem = spec(body).expect_err("must be refused");
    (problem.code, problem.place.line, problem.place.column, problem.field, problem.message)
}

#[test]
fn a_misspelt_field_names_itself_and_the_nearest_known() {
    let (code, line, column, field, message) = complaint("  rules:\n  - method: [GET]\n");
    assert_eq!((code, line, column), (codes::UNKNOWN_FIELD, 6, 5));
    assert_eq!(field, "spec.rules[0].method");
    assert_eq!(message, "unknown field `method`, did you mean `methods`?");
}

#[test]
fn a_wrong_value_names_its_path_to_the_item() {
    let (code, line, column, field, message) = complaint("  rules:\n  - methods: [GET, 5]\n");
    assert_eq!((code, line, column), (codes::WRONG_TYPE, 6, 20));
    assert_eq!(field, "spec.rules[0].methods[1]");
    assert_eq!(message, "expected a string (put it in quotes), found the number 5");
}

#[test]
fn yaml_booleans_are_refused_as_strings_and_taken_as_booleans() {
    assert_eq!(spec("  rules: [{methods: ['yes']}]\n").unwrap().rules[0].methods, ["yes"]);
    let (.., message) = complaint("  note: yes\n");
    assert_eq!(message, "expected a string (put it in quotes), found the boolean `yes`");
    assert_eq!(spec("  note: 'yes'\n").unwrap().note.as_deref(), Some("yes"));
    assert_eq!(spec("  'on': off\n").unwrap().on, Some(false));
    let (code, .., message) = complaint("  on: off\n");
    assert_eq!(code, codes::AMBIGUOUS_KEY);
    assert!(message.contains("put it in quotes"), "{message}");
}

#[test]
fn enums_name_what_is_known() {
    assert_eq!(spec("  action: DENY\n").unwrap().action, Action::Deny);
    let (code, line, _, field, message) = complaint("  action: deny\n");
    assert_eq!((code, line, field.as_str()), (codes::INVALID_VALUE, 5, "spec.action"));
    assert_eq!(message, "unknown value `deny`, did you mean `DENY`? (one of `ALLOW`, `DENY`)");
}

#[test]
fn located_values_know_place_and_path() {
    let spec = spec("  rules:\n  - paths:\n    - /a\n    - /b\n  ports: {8080: x}\n").unwrap();
    let paths = spec.rules[0].paths.as_ref().unwrap();
    assert_eq!((paths.place.line, paths.field.as_str()), (7, "spec.rules[0].paths"));
    let second = &paths[1];
    assert_eq!(second.field, "spec.rules[0].paths[1]");
    assert_eq!(second.place.to_string(), "f.yaml:8:7");
    assert_eq!(second.value, "/b");
    assert_eq!(spec.ports[&8080].field, "spec.ports.8080");
}

#[test]
fn odd_keys_are_quoted_in_paths() {
    let text = "apiVersion: v1\nkind: K\nmetadata:\n  annotations:\n    istio.io/dry-run: true\n";
    let (objects, problems) = parse("f", text);
    assert!(objects.is_empty());
    assert_eq!(problems[0].field, "metadata.annotations[\"istio.io/dry-run\"]");
    assert_eq!(problems[0].place.line, 5);
    assert!(problems[0].message.contains("quotes"), "{}", problems[0]);
}

#[test]
fn a_key_twice_names_both_lines() {
    let (code, line, _, _, message) = complaint("  note: a\n  action: DENY\n  note: b\n");
    assert_eq!((code, line), (codes::DUPLICATE_KEY, 7));
    assert_eq!(message, "the key `note` stands twice, first on line 5");
}

#[test]
fn a_broken_document_leaves_the_others() {
    let text = "apiVersion: v1\nkind: A\n---\nkind: [\n---\n# nothing\n---\nkind: C\n---\n\
                apiVersion: v1\nkind: B\n";
    let (objects, problems) = parse("f.yaml", text);
    assert_eq!(objects.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].code, codes::SYNTAX);
    assert!((4..=5).contains(&problems[0].place.line), "{}", problems[0]);
    assert_eq!((problems[1].code, problems[1].place.line), (codes::NOT_AN_OBJECT, 8));
    assert_eq!(objects[1].place.line, 10);
}

#[test]
fn lists_and_arrays_are_flattened() {
    let list = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"A"},{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"B"}]}]}"#;
    let array = r#"[{"apiVersion":"v1","kind":"A"},{"apiVersion":"v1","kind":"B"}]"#;
    for text in [list, array] {
        let (objects, problems) = parse("f.json", text);
        assert_eq!(problems, []);
        assert_eq!(objects.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    }
    let (_, problems) = parse("f", "{apiVersion: v1, kind: List, items: {}}");
    assert_eq!(problems[0].code, codes::WRONG_TYPE);
}

#[test]
fn a_list_of_another_group_is_an_object() {
    let (objects, _) = parse("f", "apiVersion: x.io/v1\nkind: List\nitems: []\n");
    assert_eq!(objects.len(), 1);
}

#[test]
fn documents_that_are_no_objects_are_errors() {
    for text in ["just text", "42", "a: 1", "kind: 5\napiVersion: v1", "apiVersion: ''\nkind: A"] {
        let (objects, problems) = parse("f", text);
        assert!(objects.is_empty() && problems.len() == 1, "{text}");
        assert_eq!(problems[0].code, codes::NOT_AN_OBJECT, "{text}");
        assert!(problems[0].is_error());
    }
    for text in ["", "---\n", "# c\n", "---\n---\n", "~\n", "null"] {
        let (objects, problems) = parse("f", text);
        assert!(objects.is_empty() && problems.is_empty(), "{text:?} {problems:?}");
    }
}

#[test]
fn metadata_takes_nulls_as_kubernetes_does() {
    let text = "apiVersion: v1\nkind: A\nmetadata: {name: demo, labels: null, creationTimestamp: null}";
    let (objects, problems) = parse("f", text);
    assert_eq!(problems, []);
    assert_eq!(objects[0].label(), "A default/demo");
    assert_eq!(parse("f", "apiVersion: v1\nkind: A\nmetadata:\n").1, []);
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    let value: Value = from_str(
        "f",
        "base: &b {a: 1, b: 2}\nother: &o {b: 9, c: 3}\nlist: [&x v, *x]\n\
         all: {<<: [*b, *o], a: 7}\none:\n  <<: *b\n  c: 1\n",
    )
    .unwrap();
    assert_eq!(value["list"], json!(["v", "v"]));
    assert_eq!(value["all"], json!({"a": 7, "b": 2, "c": 3}));
    assert_eq!(value["one"], json!({"a": 1, "b": 2, "c": 1}));
    let quoted: Value = from_str("f", "'<<': {a: 1}").unwrap();
    assert_eq!(quoted, json!({"<<": {"a": 1}}));
    assert!(from_str::<Value>("f", "a: {<<: 5}").is_err());
    assert!(from_str::<Value>("f", "a: *nowhere").is_err());
    assert!(from_str::<Value>("f", "a: &a [*a]").is_err(), "an alias to what contains it");
}

#[test]
fn tags_are_core_or_refused() {
    let value: Value = from_str("f", "[!!str 5, !!int '5', !!map {}, !!seq []]").unwrap();
    assert_eq!(value, json!(["5", 5, {}, []]));
    for text in ["!!binary aGk=", "!mine x", "a: !!set {b}"] {
        assert_eq!(from_str::<Value>("f", text).unwrap_err().code, codes::SYNTAX, "{text}");
    }
}

#[test]
fn an_empty_document_is_null_or_an_empty_mapping() {
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        port: u16,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self { port: 8080 }
        }
    }
    for text in ["", "# only a comment\n", "---\n", "{}"] {
        assert_eq!(from_str::<Settings>("f", text).unwrap(), Settings { port: 8080 }, "{text:?}");
    }
    assert_eq!(from_str::<Option<u8>>("f", "").unwrap(), None);
    let problem = from_str::<Settings>("f", "port: 1\n---\nport: 2\n").unwrap_err();
    assert_eq!((problem.code, problem.place.line), (codes::SYNTAX, 2));
    let problem = from_str::<Settings>("f", "port: 65536").unwrap_err();
    assert_eq!((problem.code, problem.place.column), (codes::INVALID_VALUE, 7));
    assert_eq!(problem.field, "port");
}

#[test]
fn deep_and_wide_input_is_bounded_in_time_and_stack() {
    let start = Instant::now();
    let laughs = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let below = format!("*a{},", level - 1).repeat(9);
        format!("{text}a{level}: &a{level} [{below}]\n")
    });
    let bracket = "[".repeat(1 << 20);
    let brace = "{a: ".repeat(1 << 18);
    let dashes = "- ".repeat(1 << 18);
    let questions = "? ".repeat(1 << 18);
    let deep_keys = "a: ".repeat(1 << 18);
    let nested = (0..5000).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<String>();
    let nested_list = "[".repeat(200) + &"]".repeat(200);
    let anchors = (0..20_000).map(|i| format!("- &a{i} [*a{}]\n", i.max(1) - 1)).collect::<String>();
    for text in [laughs, bracket, brace, dashes, questions, deep_keys, nested, nested_list, anchors] {
        let (_, problems) = parse("f", &text);
        assert!(problems.iter().any(Problem::is_error), "{}", &text[..40]);
    }
    let wide = (0..100_000).map(|i| format!("k{i}: v\n")).collect::<String>();
    let value: BTreeMap<String, String> = from_str("f", &wide).unwrap();
    assert_eq!(value.len(), 100_000);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_text_beyond_the_limit_is_refused_unread() {
    let (_, problems) = parse("f", &" ".repeat(limits::MAX_TEXT + 1));
    assert_eq!(problems[0].code, codes::TOO_LARGE);
}

#[test]
fn a_nul_does_not_hide_what_follows() {
    for text in ["apiVersion: v1\nkind: A\n\0spec: {x: 1}\n", "apiVersion: v1\nkind: A # \0\nspec: 1\n", "\0"]
    {
        let (objects, problems) = parse("f", text);
        assert!(objects.is_empty(), "{text:?}");
        assert_eq!(problems[0].code, codes::SYNTAX);
    }
    assert_eq!(parse("f", "\n\n\0").1[0].place.line, 3);
}

#[test]
fn line_ends_and_tabs_of_all_editors_are_read() {
    let windows: Value = from_str("f", "a: 1\r\nb:\r\n- x\r\n- |\r\n  y\r\n").unwrap();
    assert_eq!(windows, json!({"a": 1, "b": ["x", "y\n"]}));
    let tabs: Value = from_str("f", "{\n\t\"a\": {\n\t\t\"b\":[\n\t\t\t1,\t2\n\t\t]\n\t}\n}\n").unwrap();
    assert_eq!(tabs, json!({"a": {"b": [1, 2]}}));
    let (_, problems) = parse("f", "a:\n\tb: 1\n");
    assert_eq!((problems[0].code, problems[0].place.line), (codes::SYNTAX, 2));
}

#[test]
fn content_after_a_closed_document_is_not_dropped() {
    for text in [
        "a: 1\r---\rb: 2",
        "a: 1\r...\r---\rb: 2",
        "{a: 1} b",
        "[1] [2]",
        "{\"a\":1}\n{\"b\":2}",
        "'a' b",
        "a: 1\n]",
        "a\n... x\nb",
    ] {
        assert!(from_str::<Value>("f", text).is_err(), "{text:?}");
    }
}

#[test]
fn long_keys_are_keys() {
    let key = "k".repeat(5000);
    let value: Value = from_str("f", &format!("{{\"{key}\": 1, \"b\": {{\"{key}\":2}}}}")).unwrap();
    assert_eq!(value[&key], json!(1));
    assert_eq!(value["b"][&key], json!(2));
}

#[test]
fn json_escapes_are_read() {
    let value: Value = from_str("f", r#"{"a":"\u0041\/\b\f\n\r\t\"\\ \u2028é","e":1e3}"#).unwrap();
    assert_eq!(value["a"], "A/\u{8}\u{c}\n\r\t\"\\ \u{2028}é");
    assert_eq!(value["e"], json!(1000.0));
    let value: Value = from_str("f", r#"{"\ud83d\ude00":"\\ud83d"}"#).unwrap();
    assert_eq!(value, json!({"😀": "\\ud83d"}));
    assert!(from_str::<Value>("f", r#"["\ud83d"]"#).is_err(), "half a pair");
}

/// Any characters, control characters and line ends of Unicode included.
fn text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(
        "\u{0}\u{7}\u{1b}\u{7f}\u{85}\u{a0}\u{2028}\u{2029}\u{feff}\r\n\t ".chars().collect::<Vec<_>>(),
    );
    let any_char = prop_oneof![any::<char>(), odd];
    prop::collection::vec(any_char, 0..12).prop_map(|chars| chars.into_iter().collect())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
        "(yes|null|~|5|- a|a: b|#x|---|\\.\\.\\.|\n---\n|<<)".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn printed_json_is_read_back_as_itself(value in json_value()) {
        let compact = serde_json::to_string(&value).unwrap();
        let back = from_str::<Value>("f", &compact);
        prop_assert_eq!(back.as_ref().map_err(ToString::to_string), Ok(&value), "{}", compact);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(from_str::<Value>("f", &pretty).unwrap(), value);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse("f", &text);
        let _ = from_str::<Value>("f", &text);
    }

    #[test]
    fn no_yaml_soup_panics(words in prop::collection::vec(
        prop_oneof![
            Just("- "), Just("? "), Just(": "), Just("&a "), Just("*a "), Just("<<: "), Just("\n"),
            Just("  "), Just("["), Just("]"), Just("{"), Just("}"), Just(", "), Just("'"),
            Just("\""), Just("|\n"), Just(">-\n"), Just("---\n"), Just("...\n"), Just("!!str "),
            Just("!x "), Just("%TAG ! x\n"), Just("# c\n"), Just("\t"), Just("\r"), Just("a"),
            Just("kind: K\n"), Just("apiVersion: v1\n"), Just("\u{feff}"), Just("\0"), Just("\\u"),
        ], 0..40,
    )) {
        let text = words.concat();
        let (objects, _) = parse("f", &text);
        for object in objects {
            let _ = object.field::<Value>("spec");
        }
        let _ = from_str::<Value>("f", &text);
    }
}
