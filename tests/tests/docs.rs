//! What the documentation shows is what sluice takes.

use sluice_tests::{run, sluice_command};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_example_passes_the_check() {
    let examples = fs::read_dir(root().join("docs")).expect("the docs are there").flatten();
    let is_example = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yaml");
    let examples: Vec<_> = examples.map(|entry| entry.path()).filter(is_example).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        let said = run(sluice_command().arg("check").arg(&example));
        assert!(said.contains(": ok:"), "{}: {said}", example.display());
    }
}

#[test]
fn the_readme_shows_the_smallest_example() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let example =
        fs::read_to_string(root().join("docs/example-smallest.yaml")).expect("the example is there");
    assert!(readme.contains(&format!("```yaml\n{example}```")), "the README shows another configuration");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let docs = fs::read_dir(root().join("docs")).expect("the docs are there").flatten();
    let pages = docs.map(|entry| entry.path()).chain([root().join("README.md")]);
    for page in pages.filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(&page).expect("a page");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            let path = page.parent().expect("a folder").join(target);
            assert!(path.exists(), "{}: there is no {target}", page.display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}
