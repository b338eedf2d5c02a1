//! What the derive macro refuses, and what it says then. What it accepts is tested where the trait is, in the main crate.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p cim-persistence-derive`, and read the difference.

#[test]
fn what_is_wrong_is_refused_with_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/refused/*.rs");
}
