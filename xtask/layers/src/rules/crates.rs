//! No crate depends on a higher one.
//!
//! ```text
//! gumbel <- decision <- model <- train <- experiment <- cli
//!            kernels <- model, train, experiment, cli
//!               data <- model, train, experiment, cli
//! benches and xtask on top; xtask builds without the others
//! ```

use anyhow::{Context, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::{Finding, Report};
use crate::workspace::{Member, Workspace};

const RULE: &str = "no crate depends on a higher one";

const GUMBEL: &str = "adavit-gumbel";
const KERNELS: &str = "adavit-kernels";
const DATA: &str = "adavit-data";
const DECISION: &str = "adavit-decision";
const MODEL: &str = "adavit-model";
const TRAIN: &str = "adavit-train";
const EXPERIMENT: &str = "adavit-experiment";
// Helpers of tests, which no published crate depends on.
const TESTING: &str = "adavit-testing";
const KERNELS_TESTING: &str = "adavit-kernels-testing";

/// The layers, lowest first, with those of our crates that each may depend on.
///
/// This is the one place where they are written. It holds for every kind of dependency: optional,
/// of one platform, of tests and of build scripts.
const LAYERS: [(&str, &[&str]); 13] = [
    (GUMBEL, &[]),
    (KERNELS_TESTING, &[]),
    (KERNELS, &[KERNELS_TESTING]),
    (DATA, &[]),
    (DECISION, &[GUMBEL]),
    (MODEL, &[GUMBEL, KERNELS, DATA, DECISION]),
    (TRAIN, &[GUMBEL, KERNELS, DATA, DECISION, MODEL, TESTING]),
    (
        EXPERIMENT,
        &[GUMBEL, KERNELS, DATA, DECISION, MODEL, TRAIN, TESTING],
    ),
    (
        "adavit-cli",
        &[GUMBEL, KERNELS, DATA, DECISION, MODEL, TRAIN, EXPERIMENT],
    ),
    (
        "adavit-benches",
        &[GUMBEL, KERNELS, DATA, DECISION, MODEL, TRAIN, EXPERIMENT],
    ),
    (TESTING, &[DATA, MODEL, TRAIN]),
    // Built before `cargo xtask train` builds anything: it runs the others, and links none.
    ("xtask", &[]),
    ("xtask-layers", &[]),
];

/// What to do about a crate without a layer.
const TABLE: &str = "add it to LAYERS in xtask/layers/src/rules/crates.rs";

/// The kinds of dependencies in a manifest.
const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Checks the manifest of each member against the layers.
pub(crate) fn check(workspace: &Workspace) -> Result<Report> {
    let mut findings = Vec::new();
    for member in &workspace.members {
        let Some(allowed) = allowed(&member.name) else {
            findings.push(Finding {
                file: member.manifest_path(),
                line: 1,
                found: format!("the crate {} has no layer", member.name),
                fix: TABLE.to_string(),
            });
            continue;
        };
        for dependency in dependencies(member)? {
            if is_ours(workspace, &dependency.package) && !allowed.contains(&&*dependency.package) {
                findings.push(refusal(member, &dependency));
            }
        }
    }
    Ok(Report::new(RULE, findings))
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    let layer = LAYERS.iter().find(|(layer, _)| *layer == name)?;
    Some(layer.1)
}

/// Whether a package is one of the repository's.
fn is_ours(workspace: &Workspace, package: &str) -> bool {
    let shared = || workspace.manifest.get("workspace")?.get("dependencies");
    allowed(package).is_some()
        || workspace
            .members
            .iter()
            .any(|member| member.name == package)
        || shared().is_some_and(|all| {
            all.get(package)
                .is_some_and(|one| one.get("path").is_some())
        })
}

fn refusal(member: &Member, dependency: &Dependency) -> Finding {
    let Member { name, .. } = member;
    let Dependency { package, line, .. } = dependency;
    let fix = if allowed(package).is_some() {
        format!("move what {name} needs into a crate below it, or let the caller pass it in")
    } else {
        format!("{package} has no layer: {TABLE}")
    };
    Finding {
        file: member.manifest_path(),
        line: *line,
        found: format!("{name} depends on {package}, which is not below it"),
        fix,
    }
}

#[derive(Debug)]
struct Dependency {
    /// The package's own name, also where the manifest renames it.
    package: String,
    line: usize,
}

/// Every dependency of a member, those of single platforms included.
fn dependencies(member: &Member) -> Result<Vec<Dependency>> {
    let manifest = DeTable::parse(&member.manifest)
        .with_context(|| format!("reading {}", member.manifest_path().display()))?;
    let mut found = Vec::new();
    take(manifest.get_ref(), &member.manifest, &mut found);
    if let Some(platforms) = manifest.get_ref().get("target").and_then(table) {
        for platform in platforms.values().filter_map(table) {
            take(platform, &member.manifest, &mut found);
        }
    }
    Ok(found)
}

fn take(manifest: &DeTable, text: &str, found: &mut Vec<Dependency>) {
    for section in SECTIONS {
        let dependencies = manifest.get(section).and_then(table);
        for (name, value) in dependencies.into_iter().flatten() {
            let renamed = table(value).and_then(|value| value.get("package")?.get_ref().as_str());
            found.push(Dependency {
                package: renamed.unwrap_or(name.get_ref()).to_string(),
                line: 1 + text[..name.span().start].matches('\n').count(),
            });
        }
    }
}

fn table<'a, 'text>(value: &'a Spanned<DeValue<'text>>) -> Option<&'a DeTable<'text>> {
    value.get_ref().as_table()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Files;

    /// A workspace of two crates; the dependencies are those of the second.
    fn reports(first: &str, second: &str, dependencies: &str) -> Vec<String> {
        let files = Files::new(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
            (
                "crates/a/Cargo.toml",
                &format!("[package]\nname = \"{first}\"\n"),
            ),
            (
                "crates/b/Cargo.toml",
                &format!("[package]\nname = \"{second}\"\n{dependencies}"),
            ),
        ]);
        files.findings(check)
    }

    #[test]
    fn a_dependency_on_a_lower_crate_is_right() {
        let right = "[dependencies]\nadavit-gumbel.workspace = true\nserde = \"1\"\n";
        assert!(reports(GUMBEL, DECISION, right).is_empty());
    }

    #[test]
    fn a_dependency_on_a_higher_crate_is_refused_of_every_kind() {
        for wrong in [
            "[dependencies]\nadavit-model.workspace = true\n",
            "[dependencies]\nm = { package = \"adavit-model\", path = \"../a\", optional = true }\n",
            "[dev-dependencies]\nadavit-model = { path = \"../a\" }\n",
            "[build-dependencies]\nadavit-model.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nadavit-model.workspace = true\n",
        ] {
            let found = reports(MODEL, DECISION, wrong);
            let [one] = found.as_slice() else {
                panic!("{wrong}: {found:?}");
            };
            assert!(
                one.starts_with("crates/b/Cargo.toml:4: adavit-decision depends on adavit-model"),
                "{one}"
            );
        }
    }

    #[test]
    fn a_crate_beside_is_not_below() {
        let found = reports(
            DATA,
            KERNELS,
            "[dependencies]\nadavit-data.workspace = true\n",
        );
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_crate_without_a_layer_is_refused_and_so_is_a_dependency_on_it() {
        let found = reports(
            "adavit-new",
            MODEL,
            "[dependencies]\nadavit-new.workspace = true\n",
        );
        assert!(found[0].starts_with("crates/a/Cargo.toml:1: the crate adavit-new has no layer"));
        assert!(found[1].contains("adavit-new has no layer"), "{}", found[1]);
    }

    #[test]
    fn the_layers_point_down() {
        for (index, (name, below)) in LAYERS.iter().enumerate() {
            // Helpers of tests use the crate that they test: a cycle of dev-dependencies only.
            for lower in below.iter().filter(|lower| **lower != TESTING) {
                let place = LAYERS.iter().position(|(layer, _)| layer == lower);
                assert!(place.is_some_and(|place| place < index), "{name}: {lower}");
            }
        }
    }
}
