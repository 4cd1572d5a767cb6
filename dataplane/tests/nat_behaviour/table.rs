//! The table of `docs/NAT_BEHAVIOUR.md`.

use std::fs;
use std::path::Path;

#[test]
fn the_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for folder in ["tests", "src/packet", "src/fragment"] {
        read_all(&root.join(folder), &mut sources);
    }
    let table = fs::read_to_string(root.join("../docs/NAT_BEHAVIOUR.md")).expect("the page is there");
    let words = table.split('`').skip(1).step_by(2);
    let names: Vec<&str> =
        words.filter(|word| word.matches('_').count() > 1 && !word.contains('.')).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "max_reject_rate") {
        assert!(sources.contains(&format!("fn {name}()")), "docs/NAT_BEHAVIOUR.md names {name}");
    }
}

/// Adds every source file below `folder` to `sources`.
fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}
