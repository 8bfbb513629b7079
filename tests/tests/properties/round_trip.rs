//! What is written and read again is what it was: YAML in every hand, with hostile text in it.

use policy::istio::AuthorizationPolicy;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use tests::naive::{print, print::HANDS, strategies};

use super::hold;

/// Text that YAML readers take for something else, and characters that need care.
fn hostile() -> impl Strategy<Value = String> {
    let words = vec![
        "",
        " ",
        "~",
        "null",
        "true",
        "no",
        "yes",
        "on",
        "0",
        "007",
        "0x1f",
        "1e3",
        "-1",
        ".inf",
        "1_000",
        "2026-01-01",
        "*a",
        "&a",
        "!x",
        "- a",
        "a: b",
        "a #b",
        "#",
        "{a}",
        "[a]",
        "'",
        "\"",
        "\\",
        "%",
        "@",
        "`",
        "a\nb",
        "a\r\nb",
        "\t",
        "|",
        ">",
        "---",
        "...",
        "é",
        "漢",
        "\u{feff}x",
        "\u{85}",
        "\u{2028}",
        "🩺",
        "=",
        "<<",
        "?",
        ": ",
        ",",
    ];
    prop_oneof![select(words).prop_map(str::to_owned), ".{0,12}", "[ -~]{0,12}"]
}

/// A spec-like tree: maps, lists and text.
fn tree() -> impl Strategy<Value = Value> {
    hostile().prop_map(Value::from).prop_recursive(4, 24, 4, |inner| {
        let map = vec((hostile(), inner.clone()), 0..4)
            .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<String, Value>>()));
        prop_oneof![vec(inner, 0..4).prop_map(Value::from), map]
    })
}

#[test]
fn text_in_any_hand_is_read_as_it_was_written() {
    hold(600, &tree(), |tree| {
        for hand in HANDS {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"tree": tree},
            });
            let text = print::yaml(&object, hand);
            let (objects, problems) = policy::manifest::parse("x.yaml", &text);
            prop_assert_eq!(&problems, &[], "{}", text);
            prop_assert_eq!(objects.len(), 1, "{}", text);
            let read =
                objects[0].field::<Value>("data").unwrap_or_else(|problem| panic!("{problem:?}\n{text}"));
            prop_assert_eq!(read, Some(json!({"tree": tree})), "{}", text);
        }
        Ok(())
    });
}

/// The checked policy without its places.
fn bare(policy: &AuthorizationPolicy) -> String {
    let mut text = String::new();
    let mut rest = &*format!("{policy:?}");
    // `Place { file: .., line: .., column: .. }` is all that two hands may differ in.
    while let Some((before, after)) = rest.split_once("Place {") {
        text.push_str(before);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text + rest
}

#[test]
fn checked_policies_are_the_same_in_any_hand() {
    hold(300, &strategies::world(4), |world| {
        for policy in &world.policies {
            let object = print::policy(policy);
            let read = HANDS.map(|hand| {
                let text = print::yaml(&object, hand);
                let (objects, problems) = policy::manifest::parse("x.yaml", &text);
                assert_eq!(problems, [], "{text}");
                assert_eq!(objects[0].field::<Value>("spec").unwrap().as_ref(), object.get("spec"), "{text}");
                let (policy, problems) = AuthorizationPolicy::read(&objects[0]);
                bare(&policy.unwrap_or_else(|| panic!("{problems:?}\n{text}")))
            });
            for other in &read[1..] {
                prop_assert_eq!(&read[0], other);
            }
        }
        Ok(())
    });
}
