//! The layering rule of ARCHITECTURE.md, read off the `use crate::…` paths of the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import, besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("tensor", &["error"]),
    ("observe", &["error", "tensor"]),
    ("linalg", &["error", "tensor", "observe"]),
    ("testing", &["error", "tensor", "linalg"]),
    ("operator", &["error", "tensor", "observe", "linalg"]),
    ("functional", &["error", "tensor", "linalg", "operator"]),
    ("reconstruct", &["error", "tensor", "observe", "linalg", "operator", "functional"]),
    ("prior", &["error", "tensor", "observe", "linalg", "operator", "functional"]),
    ("sampler", &["error", "tensor", "observe", "linalg", "operator", "functional", "prior"]),
    ("gp", &["error", "tensor", "observe", "linalg"]),
    ("metric", &["error", "tensor"]),
    ("phantom", &["error", "tensor", "operator"]),
    ("io", &["error", "tensor", "metric"]),
    ("plot", &["error", "tensor", "metric", "io"]),
];

/// Words that only some folders may contain, with why.
const CONFINED: &[(&str, &[&str])] = &[
    ("CpuStorage", &["src/tensor/", "src/prior/"]),
    ("faer::", &["src/linalg/dense"]),
    ("ndarray_linalg", &["src/linalg/dense"]),
    ("plotters::", &["src/plot/"]),
    ("clap::", &["src/cli/", "src/main.rs"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and without its unit tests, which may use anything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("sources are UTF-8");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn imports(code: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            // `use crate::{a::…, b}`: names after the brace and after commas at depth 1.
            Some(group) => {
                let mut depth = 1;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => start = true,
                        c if start && !c.is_whitespace() => {
                            found.insert(name(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            None => {
                found.insert(name(part));
            }
        }
    }
    found
}

#[test]
fn modules_import_only_leftward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let inside = path.strip_prefix(root.join("src")).expect("below src");
        let module =
            inside.iter().next().and_then(|p| p.to_str()).unwrap_or_default().trim_end_matches(".rs");
        if ["lib", "main", "cli"].contains(&module) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} has no place in the layering", inside.display()));
            continue;
        };
        for import in imports(&code(path)) {
            if import != module && !allowed.contains(&import.as_str()) && !import.is_empty() {
                wrong.push(format!("{}: {module} may not import {import}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn confined_names_stay_where_they_belong() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let inside = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let text = code(path);
        for (word, homes) in CONFINED {
            if text.contains(word) && !homes.iter().any(|home| inside.starts_with(home)) {
                wrong.push(format!("{inside}: `{word}` belongs to {homes:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_reader_sees_every_form() {
    let seen = imports("use crate::{error::Result, tensor::{Buffer, Space}};\nlet x = crate::linalg::f();");
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["error", "linalg", "tensor"]);
}
