//! `wellposed pde`: solve differential equations, built-in or from a file.

mod picture;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use wellposed::error::Result;
use wellposed::gp::benchmark::{Case, Group, cases, covered, relative_l2};
use wellposed::gp::text::TextProblem;
use wellposed::gp::{Collocation, Data, Derivative, GpHm, PdeSolution, Problem, WeightSpace, tensor_grid};

use super::failure::Outcome;
use super::{console, output};

/// Subcommands of `wellposed pde`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the built-in cases.
    List(List),
    /// Solve a built-in case, or a problem.toml.
    Solve(Solve),
    /// Solve all built-in cases and print the table of errors and times.
    Bench(Bench),
}

/// Arguments of `wellposed pde list`.
#[derive(Debug, Args)]
pub struct List {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// Arguments of `wellposed pde solve`.
#[derive(Debug, Args)]
pub struct Solve {
    /// Name of a built-in case, or a file ending in .toml.
    case: String,
    #[command(flatten)]
    method: Method,
    /// Gaussian errors in the source, relative to its rms; 0 for none. Built-in cases only.
    #[arg(long, default_value_t = 0.0, value_name = "LEVEL")]
    noise: f64,
    /// Seed of the errors.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Picture of the solution, PNG; in 1-D the error and the spectrum are written beside it.
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
}

/// Arguments of `wellposed pde bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    method: Method,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct Method {
    /// The engine.
    #[arg(long, value_enum, default_value_t = Engine::DEFAULT)]
    engine: Engine,
    /// Equation points per axis; by default the case's own (at most 40 in 2-D and 10 in 3-D for collocation).
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// Descent steps of gp-hm.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    iterations: usize,
    /// Highest frequency in the start of gp-hm's mixture, radians per unit of length; by default 1.25 times that of
    /// the data.
    #[arg(long, value_name = "W")]
    highest: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Spectral-mixture process in weight space by QR.
    Weights,
    /// Symmetric collocation by Cholesky.
    Collocation,
    /// The published GP-HM objective.
    GpHm,
}

impl Engine {
    const DEFAULT: Self = Self::Weights;

    fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Collocation => "collocation",
            Self::GpHm => "gp-hm",
        }
    }
}

impl Method {
    /// A dense Gram matrix takes a few thousand rows, the case's own points are meant for the structured engines.
    fn points(&self, problem: &Problem, own: Option<usize>) -> usize {
        let dense = [usize::MAX, 40, 10][problem.dim().clamp(1, 3) - 1];
        let own = own.unwrap_or([400, 40, 10][problem.dim().clamp(1, 3) - 1]);
        self.points.unwrap_or(if self.engine == Engine::Collocation { own.min(dense) } else { own })
    }

    fn solve(&self, problem: &Problem, points: usize) -> Result<PdeSolution> {
        match self.engine {
            Engine::Weights => WeightSpace { points: Some(points), ..WeightSpace::default() }.solve(problem),
            Engine::Collocation => Collocation { points, ..Collocation::default() }.solve(problem),
            Engine::GpHm => {
                let engine =
                    GpHm { points, iterations: self.iterations, highest: self.highest, ..GpHm::default() };
                engine.solve(problem, &mut ())
            }
        }
    }
}

/// What is solved, and the truth where it is known.
struct Subject {
    name: String,
    problem: Problem,
    exact: Option<Data>,
    points: Option<usize>,
    noisy: bool,
}

impl Subject {
    fn of_case(case: Case) -> Self {
        let exact = Some(case.exact.data(Derivative::VALUE));
        Self { name: case.name.into(), problem: case.problem, exact, points: Some(case.points), noisy: false }
    }

    fn read(arguments: &Solve) -> Result<Self> {
        if arguments.case.ends_with(".toml") {
            let file = TextProblem::read(&arguments.case)?;
            let noisy = file.problem.source_noise > 0.0;
            let name = arguments.case.clone();
            return Ok(Self { name, problem: file.problem, exact: file.exact, points: file.points, noisy });
        }
        let case = wellposed::gp::benchmark::case(&arguments.case)?;
        if arguments.noise == 0.0 {
            return Ok(Self::of_case(case));
        }
        let samples = arguments.method.points(&case.problem, Some(case.points));
        let noisy = case.noisy(samples, arguments.noise, arguments.seed)?;
        Ok(Self { noisy: true, ..Self::of_case(noisy) })
    }
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    engine: &'static str,
    points: usize,
    unknowns: usize,
    /// ‖u − u*‖ / ‖u*‖ on 300, 300² or 100³ uniform points.
    error_l2: Option<f64>,
    /// Relative residual of equation and boundary, whichever is larger, off the fitted points.
    residual: f64,
    /// Solve and evaluate on the test grid.
    seconds: f64,
    /// Share of test points inside the 95 % interval, under noise.
    coverage: Option<f64>,
    termination: &'static str,
    steps: usize,
    warnings: Vec<String>,
}

fn solve_one(subject: &Subject, method: &Method) -> Result<(Row, PdeSolution)> {
    let points = method.points(&subject.problem, subject.points);
    let axes = subject.problem.uniform_axes([300, 300, 100][subject.problem.dim() - 1]);
    let start = Instant::now();
    let solution = method.solve(&subject.problem, points)?;
    let u = solution.mean_on_grid(&axes)?;
    let seconds = start.elapsed().as_secs_f64();
    let truth = subject.exact.as_ref().map(|exact| exact.on_grid(&axes)).transpose()?;
    let coverage = coverage(subject, &solution)?;
    let row = Row {
        case: subject.name.clone(),
        engine: method.engine.name(),
        points,
        unknowns: solution.unknowns,
        error_l2: truth.map(|truth| relative_l2(&u, &truth)),
        residual: solution.residual.worst(),
        seconds,
        coverage,
        termination: solution.termination.name(),
        steps: solution.steps,
        warnings: solution.warnings.clone(),
    };
    Ok((row, solution))
}

/// On 300 points in 1-D, 30² or 10³ in more dimensions, where variances cost more.
fn coverage(subject: &Subject, solution: &PdeSolution) -> Result<Option<f64>> {
    let (Some(exact), true) = (&subject.exact, subject.noisy) else { return Ok(None) };
    let axes = subject.problem.uniform_axes([300, 30, 10][subject.problem.dim() - 1]);
    let points = tensor_grid(&axes);
    let truth = exact.on_grid(&axes)?.into_flat();
    Ok(Some(covered(&solution.mean(&points)?, &solution.deviation(&points)?, &truth)))
}

/// Runs a subcommand.
pub fn run(command: &Command) -> Outcome {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Solve(arguments) => solve(arguments),
        Command::Bench(arguments) => bench(arguments),
    }
}

#[derive(Serialize)]
struct Listed {
    case: &'static str,
    group: &'static str,
    points: usize,
    summary: &'static str,
}

fn list(arguments: &List) -> Outcome {
    let group = |group| match group {
        Group::Reference => "reference",
        Group::Equations => "equations",
        Group::Broadband => "broadband",
        Group::Untuned => "untuned",
    };
    let rows: Vec<Listed> = cases()
        .iter()
        .map(|c| Listed { case: c.name, group: group(c.group), points: c.points, summary: c.summary })
        .collect();
    if arguments.json {
        return console::print_json(&rows);
    }
    let line = |r: &Listed| format!("{:24} {:10} {:>5}  {}\n", r.case, r.group, r.points, r.summary);
    let heading = format!("{:24} {:10} {:>5}  {}\n", "case", "group", "n/dim", "problem");
    console::print(&(heading + &rows.iter().map(line).collect::<String>()))
}

fn solve(arguments: &Solve) -> Outcome {
    if let Some(plot) = &arguments.plot {
        output::check_plot(plot)?;
    }
    let subject = Subject::read(arguments)?;
    let (row, solution) = solve_one(&subject, &arguments.method)?;
    if let Some(plot) = &arguments.plot {
        picture::draw(&subject.problem, subject.exact.as_ref(), &solution, plot)?;
    }
    if arguments.json {
        return console::print_json(&row);
    }
    console::print(&(heading() + &line(&row)))?;
    row.warnings.iter().for_each(|warning| console::say(&format!("warning: {warning}")));
    Ok(())
}

fn heading() -> String {
    format!(
        "{:24} {:12} {:>6} {:>8} {:>9} {:>9} {:>9} {:>8}\n",
        "case", "engine", "n/dim", "unknowns", "error l2", "residual", "seconds", "coverage"
    )
}

fn line(row: &Row) -> String {
    let optional = |value: Option<f64>, text: fn(f64) -> String| value.map_or("–".into(), text);
    format!(
        "{:24} {:12} {:>6} {:>8} {:>9} {:>9.1e} {:>9.4} {:>8}\n",
        row.case,
        row.engine,
        row.points,
        row.unknowns,
        optional(row.error_l2, |e| format!("{e:.1e}")),
        row.residual,
        row.seconds,
        optional(row.coverage, |c| format!("{c:.2}")),
    )
}

/// A case that an engine refuses is reported on stderr and left out of the table.
fn bench(arguments: &Bench) -> Outcome {
    let wanted = |case: &Case| arguments.only.as_ref().is_none_or(|text| case.name.contains(text.as_str()));
    let mut rows = Vec::new();
    for case in cases().into_iter().filter(wanted) {
        let name = case.name;
        match solve_one(&Subject::of_case(case), &arguments.method) {
            Ok((row, _)) => rows.push(row),
            Err(error) => console::say(&format!("{name}: {error}")),
        }
        if let (false, Some(row)) = (arguments.json, rows.last().filter(|row| row.case == name)) {
            let first = if rows.len() == 1 { heading() } else { String::new() };
            console::print(&(first + &line(row)))?;
        }
    }
    if arguments.json { console::print_json(&rows) } else { Ok(()) }
}
