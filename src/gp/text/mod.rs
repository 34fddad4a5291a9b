//! A problem written as a TOML file with formulas.
//!
//! ```toml
//! variables = ["x", "t"]                      # at most three; time is one of them
//! domain = [[0, 1], [0, "2*PI"]]
//! operator = { u_t = 1, u_xx = "-0.01*(1 + x)" }
//! nonlinear = "u*u_x"                         # optional: any formula of the variables, u and its derivatives
//! source = "sin(x)*exp(-t)"                   # optional: 0
//! exact = "…"                                 # optional: then the error is reported
//! periodic = ["x"]                            # optional
//! points = 100                                # optional: per axis
//! noise = { source = 0.1, boundary = 0.0 }    # optional: standard deviations
//!
//! [[boundary]]
//! face = "x low"                              # or "x high"; an initial condition is "t low"
//! dirichlet = "0"                             # or neumann = "…" (outward), or robin = { value, slope, data }
//! ```

mod expression;

use std::path::Path;

use serde::Deserialize;

use super::problem::{Condition, Data, Derivative, DifferentialOperator, Face, Nonlinearity, Problem, Side};
use crate::error::{Error, Result};

pub use expression::Expression;

/// A problem read from a file.
#[derive(Clone, Debug)]
pub struct TextProblem {
    /// The problem, validated.
    pub problem: Problem,
    /// The exact solution, where the file gives one.
    pub exact: Option<Data>,
    /// Points per axis, where the file gives them.
    pub points: Option<usize>,
    /// Names of the axes.
    pub variables: Vec<String>,
}

/// A number or a formula.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Formula {
    Number(f64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    variables: Vec<String>,
    domain: Vec<[Formula; 2]>,
    operator: toml::Table,
    nonlinear: Option<String>,
    source: Option<Formula>,
    exact: Option<Formula>,
    #[serde(default)]
    periodic: Vec<String>,
    points: Option<usize>,
    #[serde(default)]
    noise: Levels,
    #[serde(default)]
    boundary: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Levels {
    source: f64,
    boundary: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    face: String,
    dirichlet: Option<Formula>,
    neumann: Option<Formula>,
    robin: Option<Robin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Robin {
    value: f64,
    slope: f64,
    data: Formula,
}

impl TextProblem {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the file, the key, the text and the column.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text).map_err(|error| Error::format(path, error))
    }

    /// As [`TextProblem::read`], from the text itself.
    ///
    /// ```
    /// let problem = wellposed::gp::text::TextProblem::parse(r#"
    ///     variables = ["x"]
    ///     domain = [[0, "PI"]]
    ///     operator = { u_xx = 1 }
    ///     source = "-sin(x)"
    ///     boundary = [{ face = "x low", dirichlet = 0 }, { face = "x high", neumann = "-1" }]
    /// "#)?;
    /// assert_eq!(problem.problem.order(0), 2);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Names the key, the text and the column.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)
            .map_err(|e| Error::parameter("problem", "TOML", e.to_string().trim_end()))?;
        let names: Vec<&str> = file.variables.iter().map(String::as_str).collect();
        check_names(&names)?;
        let domain = file
            .domain
            .iter()
            .map(|[low, high]| Ok([constant("domain", low)?, constant("domain", high)?]))
            .collect::<Result<Vec<_>>>()?;
        if domain.len() != names.len() {
            let reason = format!("one interval for each of the {} variables", names.len());
            return Err(Error::parameter("domain", format!("{} intervals", domain.len()), reason));
        }
        let mut problem = Problem::new(&domain).operator(operator(&file.operator, &names)?);
        if let Some(text) = &file.nonlinear {
            problem = problem.nonlinear(nonlinear(text, &names)?);
        }
        if let Some(source) = &file.source {
            problem = problem.source(data("source", source, &names)?);
        }
        for name in &file.periodic {
            problem = problem.periodic(axis("periodic", name, &names)?);
        }
        for entry in &file.boundary {
            let (face, condition) = condition(entry, &names)?;
            problem = problem.condition(face, condition);
        }
        problem = problem.noise(file.noise.source, file.noise.boundary);
        problem.validate()?;
        let exact = file.exact.as_ref().map(|exact| data("exact", exact, &names)).transpose()?;
        Ok(Self { problem, exact, points: file.points, variables: file.variables })
    }
}

fn check_names(names: &[&str]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let letter = name.chars().count() == 1 && name.chars().all(char::is_alphabetic);
        if !letter || ["u", "E"].contains(name) || !seen.insert(*name) {
            return Err(Error::parameter(
                "variables",
                name,
                "names are single, different letters other than u and E",
            ));
        }
    }
    Ok(())
}

fn axis(key: &str, name: &str, names: &[&str]) -> Result<usize> {
    let missing = || Error::parameter(key, name, format!("the variables are {}", names.join(", ")));
    names.iter().position(|known| *known == name).ok_or_else(missing)
}

fn constant(key: &str, formula: &Formula) -> Result<f64> {
    match formula {
        Formula::Number(value) => Ok(*value),
        Formula::Text(text) => Ok(Expression::parse(key, text, &[])?.value(&[])),
    }
}

fn data(key: &str, formula: &Formula, names: &[&str]) -> Result<Data> {
    match formula {
        Formula::Number(value) => Ok(Data::Constant(*value)),
        Formula::Text(text) => {
            let expression = Expression::parse(key, text, names)?;
            if expression.is_constant() {
                return Ok(Data::Constant(expression.value(&[])));
            }
            Ok(Data::function(move |x| expression.value(x)))
        }
    }
}

/// `u`, `u_x`, `u_xxt`.
fn derivative(key: &str, name: &str, names: &[&str]) -> Result<Derivative> {
    let letters = match name.strip_prefix("u_") {
        Some(letters) if !letters.is_empty() => letters,
        _ if name == "u" => "",
        _ => return Err(Error::parameter(key, name, "derivatives are written u, u_x, u_xx, u_xt")),
    };
    letters.chars().try_fold(Derivative::VALUE, |d, letter| {
        Ok(d.and(Derivative::along(axis(key, &letter.to_string(), names)?, 1)))
    })
}

fn operator(table: &toml::Table, names: &[&str]) -> Result<DifferentialOperator> {
    table.iter().try_fold(DifferentialOperator::default(), |sum, (name, value)| {
        let key = format!("operator.{name}");
        let formula = match value {
            toml::Value::Integer(i) => Formula::Number(*i as f64),
            toml::Value::Float(f) => Formula::Number(*f),
            toml::Value::String(text) => Formula::Text(text.clone()),
            other => return Err(Error::parameter(key, other, "a number or a formula in quotes")),
        };
        Ok(sum.with(derivative(&key, name, names)?, data(&key, &formula, names)?))
    })
}

/// Orders of derivatives that a nonlinear term may name along each axis.
const NONLINEAR_ORDER: usize = 2;

/// The partial derivatives are central differences: they only steer Newton's method, whose fixed point doesn't depend
/// on them.
fn nonlinear(text: &str, names: &[&str]) -> Result<Nonlinearity> {
    let mut candidates = vec!["u".to_string()];
    for name in names {
        candidates.extend((1..=NONLINEAR_ORDER).map(|order| format!("u_{}", name.repeat(order))));
    }
    let all: Vec<&str> = names.iter().copied().chain(candidates.iter().map(String::as_str)).collect();
    let whole = Expression::parse("nonlinear", text, &all)?;
    let mut used: Vec<&str> =
        whole.uses().iter().filter(|slot| **slot >= names.len()).map(|slot| all[*slot]).collect();
    used.dedup();
    if used.is_empty() {
        return Err(Error::parameter(
            "nonlinear",
            format!("\"{text}\""),
            "it contains neither u nor a derivative: write it as part of the source",
        ));
    }
    let arguments =
        used.iter().map(|name| derivative("nonlinear", name, names)).collect::<Result<Vec<_>>>()?;
    let inputs: Vec<&str> = names.iter().chain(&used).copied().collect();
    let expression = Expression::parse("nonlinear", text, &inputs)?;
    let evaluate = move |x: &[f64], u: &[f64]| {
        let mut all = [0.0; 16];
        all[..x.len()].copy_from_slice(x);
        all[x.len()..x.len() + u.len()].copy_from_slice(u);
        expression.value(&all[..x.len() + u.len()])
    };
    let again = evaluate.clone();
    let partials = move |x: &[f64], u: &[f64], out: &mut [f64]| {
        let mut moved = u.to_vec();
        for (i, out) in out.iter_mut().enumerate() {
            let step = 6e-6 * u[i].abs().max(1.0);
            moved[i] = u[i] + step;
            let high = again(x, &moved);
            moved[i] = u[i] - step;
            *out = (high - again(x, &moved)) / (2.0 * step);
            moved[i] = u[i];
        }
    };
    Ok(Nonlinearity::new(arguments, evaluate, partials))
}

fn condition(entry: &Entry, names: &[&str]) -> Result<(Face, Condition)> {
    let key = format!("boundary \"{}\"", entry.face);
    let mut words = entry.face.split_whitespace();
    let (name, side) = match (words.next(), words.next(), words.next()) {
        (Some(name), Some("low"), None) => (name, Side::Low),
        (Some(name), Some("high"), None) => (name, Side::High),
        _ => {
            return Err(Error::parameter(
                "boundary face",
                &entry.face,
                "a variable and low or high: \"x low\"",
            ));
        }
    };
    let face = Face { axis: axis("boundary face", name, names)?, side };
    let condition = match (&entry.dirichlet, &entry.neumann, &entry.robin) {
        (Some(g), None, None) => Condition::Dirichlet(data(&format!("{key} dirichlet"), g, names)?),
        (None, Some(g), None) => Condition::Neumann(data(&format!("{key} neumann"), g, names)?),
        (None, None, Some(Robin { value, slope, data: g })) => {
            Condition::Robin { value: *value, slope: *slope, data: data(&format!("{key} robin"), g, names)? }
        }
        _ => return Err(Error::parameter(key, "conditions", "exactly one of dirichlet, neumann and robin")),
    };
    Ok((face, condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURGERS: &str = r#"
        variables = ["x", "t"]
        domain = [[-1, 1], [0, 1]]
        operator = { u_t = 1, u_xx = "-0.05*(1 + 0*x)" }
        nonlinear = "u*u_x"
        exact = "0.5 - 0.5*tanh(5*(x - 0.5*t))"
        points = 20
        boundary = [
            { face = "x low", dirichlet = "0.5 - 0.5*tanh(5*(x - 0.5*t))" },
            { face = "x high", robin = { value = 1, slope = 0, data = "0.5 - 0.5*tanh(5*(x - 0.5*t))" } },
            { face = "t low", dirichlet = "0.5 - 0.5*tanh(5*x)" },
        ]
    "#;

    #[test]
    fn a_file_becomes_a_problem() -> Result<()> {
        let read = TextProblem::parse(BURGERS)?;
        let p = &read.problem;
        assert_eq!((p.dim(), p.order(0), p.order(1), read.points), (2, 2, 1, Some(20)));
        let term = &p.nonlinear[0];
        assert_eq!(term.arguments, [Derivative::VALUE, Derivative::along(0, 1)]);
        let mut d = [0.0; 2];
        term.partials(&[0.1, 0.2], &[2.0, 3.0], &mut d);
        assert!((term.value(&[0.1, 0.2], &[2.0, 3.0]) - 6.0).abs() < 1e-15);
        assert!((d[0] - 3.0).abs() < 1e-8 && (d[1] - 2.0).abs() < 1e-8);
        let exact = read.exact.expect("given");
        assert!((exact.value(&[0.5, 1.0])? - 0.5).abs() < 1e-15);
        Ok(())
    }

    #[test]
    fn faults_name_key_text_and_column() {
        let message =
            |from: &str, to: &str| TextProblem::parse(&BURGERS.replace(from, to)).unwrap_err().to_string();
        let coefficient = message("-0.05*(1 + 0*x)", "-0.05*(1 + 0*q)");
        assert!(coefficient.contains("operator.u_xx") && coefficient.contains("column 14"), "{coefficient}");
        assert!(message("u_t = 1", "u_y = 1").contains("operator.u_y"));
        assert!(message("t low", "t start").contains("t start"));
        assert!(message("u*u_x", "x^2").contains("nonlinear"));
        assert!(message("points = 20", "pionts = 20").contains("pionts"));
        assert!(message("[0, 1]]", "[0, 1], [0, 1]]").contains("domain"));
        assert!(message("{ face = \"t low\"", "{ face = \"x low\"").contains("boundary axis 1"));
    }
}
