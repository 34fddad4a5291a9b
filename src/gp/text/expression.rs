//! Formulas as text.

use exmex::{Express, FlatEx};

use crate::error::{Error, Result};

/// A parsed formula of named variables: + − * / ^, parentheses, PI, E, and exp, ln, sin, cos, tan, tanh, sqrt, abs, ….
#[derive(Clone, Debug)]
pub struct Expression {
    compiled: FlatEx<f64>,
    /// For each variable of the compiled formula, its place among the allowed names.
    slots: Vec<usize>,
}

impl Expression {
    /// Parses `text`, which may use the variables `names`; `key` is what errors call the formula.
    ///
    /// A leading minus binds less tightly than a power, as on paper: −x^2 is −(x²).
    ///
    /// ```
    /// use wellposed::gp::text::Expression;
    /// let f = Expression::parse("source", "exp(-x^2) + 2*t", &["x", "t"])?;
    /// assert!((f.value(&[1.0, 3.0]) - ((-1.0f64).exp() + 6.0)).abs() < 1e-15);
    /// let error = Expression::parse("source", "2*y", &["x"]).unwrap_err().to_string();
    /// assert!(error.contains("source") && error.contains("column 3"));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Names the key, the text, the column and what was expected.
    pub fn parse(key: &str, text: &str, names: &[&str]) -> Result<Self> {
        let fault = |column: usize, why: &str| {
            Error::parameter(key, format!("\"{text}\""), format!("at column {column}: {why}"))
        };
        if let Some((at, why)) = unbalanced(text) {
            return Err(fault(at + 1, why));
        }
        let compiled: FlatEx<f64> =
            exmex::parse(&expand_exponents(&loosen_signs(text))).map_err(|error| {
                let rest = error.msg().strip_prefix("don't know how to parse ");
                let at = rest.and_then(|rest| text.rfind(rest)).unwrap_or(text.len().saturating_sub(1));
                fault(text[..at].chars().count() + 1, error.msg())
            })?;
        let mut slots = Vec::new();
        for name in compiled.var_names() {
            match names.iter().position(|known| known == name) {
                Some(slot) => slots.push(slot),
                None => {
                    let known = names.join(", ");
                    let why = format!("`{name}` is neither a function nor one of the variables {known}");
                    return Err(fault(word(text, name) + 1, &why));
                }
            }
        }
        Ok(Self { compiled, slots })
    }

    /// The value for the variables in the order of the names; NaN outside the formula's domain.
    pub fn value(&self, variables: &[f64]) -> f64 {
        let mut own = [0.0; 16];
        let count = self.slots.len();
        if count > own.len() || self.slots.iter().any(|slot| *slot >= variables.len()) {
            return f64::NAN;
        }
        own.iter_mut().zip(&self.slots).for_each(|(own, slot)| *own = variables[*slot]);
        self.compiled.eval(&own[..count]).unwrap_or(f64::NAN)
    }

    /// Whether it depends on no variable.
    pub fn is_constant(&self) -> bool {
        self.slots.is_empty()
    }

    /// Which of the allowed names occur, by index.
    pub fn uses(&self) -> &[usize] {
        &self.slots
    }
}

/// The first parenthesis without partner.
fn unbalanced(text: &str) -> Option<(usize, &'static str)> {
    let mut open = Vec::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            '(' => open.push(at),
            ')' if open.pop().is_none() => return Some((at, "this parenthesis was never opened")),
            _ => {}
        }
    }
    if text.trim().is_empty() {
        return Some((0, "the formula is empty"));
    }
    open.pop().map(|at| (at, "this parenthesis is never closed"))
}

/// The expression crate lets a sign bind more tightly than a power, so that −x^2 would be (−x)²: signs are written as
/// differences and products instead.
fn loosen_signs(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = None;
    for c in text.chars() {
        match (c, before) {
            ('-', None | Some('(' | ',')) => out.push_str("0-"),
            ('-', Some('+' | '-' | '*')) => out.push_str("(0-1)*"),
            ('-', Some('/')) => out.push_str("(0-1)/"),
            _ => out.push(c),
        }
        if !c.is_whitespace() {
            before = Some(c);
        }
    }
    out
}

/// The expression crate knows no exponents of ten: 1e-3 is written as (1*10^(0-3)).
fn expand_exponents(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let start = at;
        while !word && at < chars.len() && (digit(at) || (chars[at] == '.' && at > start)) {
            at += 1;
        }
        let mantissa: String = chars[start..at].iter().collect();
        let signed = usize::from(matches!(chars.get(at + 1), Some('+' | '-')));
        if at > start && matches!(chars.get(at), Some('e' | 'E')) && digit(at + 1 + signed) {
            let sign = if chars[at + 1] == '-' { "0-" } else { "" };
            at += 1 + signed;
            let first = at;
            while digit(at) {
                at += 1;
            }
            let power: String = chars[first..at].iter().collect();
            out.push_str(&format!("({mantissa}*10^({sign}{power}))"));
        } else if at > start {
            out.push_str(&mantissa);
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where `name` first stands as a whole word.
fn word(text: &str, name: &str) -> usize {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let found = text.match_indices(name).find(|(at, _)| {
        !letter(text[..*at].chars().next_back()) && !letter(text[at + name.len()..].chars().next())
    });
    found.map_or(0, |(at, _)| text[..at].chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_bind_as_on_paper() -> Result<()> {
        for (text, expected) in [
            ("-x^2", -9.0),
            ("2 - -x^2", 11.0),
            ("2*-x^2", -18.0),
            ("x^-2", 1.0 / 9.0),
            ("-sin(x)^2", -(3.0_f64.sin().powi(2))),
            ("exp(-x)", (-3.0_f64).exp()),
            ("1e-3*x", 3e-3),
            ("2.5E2*x + 1e1", 760.0),
            ("2/3/x", 2.0 / 9.0),
            ("2-3-x", -4.0),
            ("-x + 1", -2.0),
            ("-2*x + PI", std::f64::consts::PI - 6.0),
        ] {
            let value = Expression::parse("f", text, &["x"])?.value(&[3.0]);
            assert!((value - expected).abs() < 1e-14, "{text}: {value} {expected}");
        }
        Ok(())
    }

    #[test]
    fn faults_are_placed() {
        let message = |text: &str| Expression::parse("source", text, &["x"]).unwrap_err().to_string();
        assert!(message("sin(2*q)").contains("column 7"), "{}", message("sin(2*q)"));
        assert!(message("sin(x").contains("column 4"));
        assert!(message("x)").contains("column 2"));
        assert!(message("").contains("empty"));
        assert!(message("x + $").contains("column 5"), "{}", message("x + $"));
    }
}
