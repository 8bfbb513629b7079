//! A decision allocates nothing, however many policies there are and whatever it comes to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../benches/decision/counting.rs"]
mod counting;
#[path = "../benches/decision/meshes.rs"]
mod meshes;

use meshes::{KINDS, Shape, asked, workload_policy};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn the_counter_counts() {
    let (count, list) = counting::allocations(|| vec![1_u8; 100]);
    assert_eq!((count, list.len()), (1, 100));
}

#[test]
fn a_decision_makes_no_allocation() {
    for (shape, count) in
        [(Shape::Roles, 1), (Shape::Roles, 500), (Shape::Mixed, KINDS), (Shape::Mixed, 50 * KINDS)]
    {
        let policy = workload_policy(shape, count);
        for asked in &asked() {
            let question = asked.question();
            let (allocations, decision) = counting::allocations(|| policy.decide(&question));
            assert_eq!(decision.verdict, asked.verdict, "{} among {count} {shape:?}", asked.name);
            assert_eq!(allocations, 0, "{} among {count} {shape:?}", asked.name);
        }
    }
}
