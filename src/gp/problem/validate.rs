//! What makes a problem ill-posed before any engine has seen it.

use ndarray::{Array1, Array2, ArrayView1};

use super::{Boundary, Condition, Data, Derivative, Problem, tensor_grid};
use crate::error::{Error, Result};

/// The highest derivative along one axis that any engine evaluates.
const MAX_ORDER: usize = 4;

impl Problem {
    /// Checks that the problem is complete and that its data are finite, on a grid of probe points.
    ///
    /// # Errors
    /// Names the part at fault: domain, operator (no terms, axis out of range, order above 4), coefficient (not
    /// finite, or the leading one vanishing inside), source, boundary (missing, contradictory, not finite), noise.
    pub fn validate(&self) -> Result<()> {
        self.check_domain()?;
        self.check_derivatives()?;
        for (name, noise) in [("source noise", self.source_noise), ("boundary noise", self.boundary_noise)] {
            if !(noise >= 0.0 && noise.is_finite()) {
                return Err(Error::parameter(name, noise, "a standard deviation is finite and not negative"));
            }
        }
        let probes = tensor_grid(&self.probe_axes());
        for (index, term) in self.operator.terms.iter().enumerate() {
            check_coefficient(index, &term.coefficient, &probes)?;
        }
        self.check_leading_coefficients(&probes)?;
        check_data("source", &self.source, &probes)?;
        self.check_boundary()?;
        self.check_observations()
    }

    /// # Errors
    /// `points` equally spaced on `axis` can't resolve the angular frequency `frequency` of the data: fewer than two a
    /// period alias silently.
    pub fn require_resolution(&self, axis: usize, points: usize, frequency: f64) -> Result<()> {
        let needed = (frequency * self.length(axis) / std::f64::consts::PI).floor() as usize + 2;
        if points >= needed {
            return Ok(());
        }
        Err(Error::parameter(
            "points",
            points,
            format!(
                "the data oscillate with angular frequency {frequency:.4} along axis {axis}, so that at least {needed} points are needed on it"
            ),
        ))
    }

    fn check_domain(&self) -> Result<()> {
        if !(1..=3).contains(&self.dim()) {
            return Err(Error::parameter(
                "domain",
                format!("{} axes", self.dim()),
                "a box has 1, 2 or 3 axes",
            ));
        }
        for (axis, [low, high]) in self.domain.iter().enumerate() {
            if !(low.is_finite() && high.is_finite() && low < high) {
                return Err(Error::parameter(
                    format!("domain axis {axis}"),
                    format!("[{low}, {high}]"),
                    "an interval is finite, with low < high",
                ));
            }
        }
        Ok(())
    }

    fn check_derivatives(&self) -> Result<()> {
        if self.operator.terms.is_empty() && self.nonlinear.is_empty() {
            return Err(Error::parameter("operator", "no terms", "the equation must contain u"));
        }
        let observed = self.observations.iter().map(|o| o.derivative);
        for derivative in self.derivatives().into_iter().chain(observed) {
            let outside = (self.dim()..3).any(|axis| derivative.order(axis) > 0);
            if outside || derivative.0.iter().any(|&order| usize::from(order) > MAX_ORDER) {
                return Err(Error::parameter(
                    "operator",
                    format!("{:?}", derivative.0),
                    format!(
                        "derivatives run along the {} axes of the domain, to order {MAX_ORDER}",
                        self.dim()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Both ends and a few dozen points between, off every uniform grid.
    fn probe_axes(&self) -> Vec<Array1<f64>> {
        let inside = [509, 61, 17][self.dim() - 1];
        let mut axes = self.off_grid_axes(inside);
        for (axis, [low, high]) in axes.iter_mut().zip(&self.domain) {
            *axis = std::iter::once(*low).chain(axis.iter().copied()).chain(std::iter::once(*high)).collect();
        }
        axes
    }

    /// In 1-D the coefficient of the highest derivative must keep its sign inside; in more dimensions the coefficients
    /// of the highest derivatives must not all vanish at one point.
    fn check_leading_coefficients(&self, probes: &Array2<f64>) -> Result<()> {
        let highest = |d: &Derivative| d.total();
        let top = self.operator.terms.iter().map(|term| highest(&term.derivative)).max().unwrap_or(0);
        let nonlinear_top = self.nonlinear.iter().flat_map(|n| &n.arguments).map(highest).max().unwrap_or(0);
        if top == 0 || nonlinear_top >= top {
            return Ok(());
        }
        let mut sums = Array1::<f64>::zeros(probes.nrows());
        for term in self.operator.terms.iter().filter(|term| term.derivative.total() == top) {
            let values = term.coefficient.at(probes)?;
            if self.dim() == 1 { sums += &values } else { sums += &values.mapv(f64::abs) }
        }
        let tolerance = 1e-12 * sums.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let sign = if self.dim() == 1 { sums[sums.len() / 2].signum() } else { 1.0 };
        let inside =
            |x: ArrayView1<f64>| x.iter().zip(&self.domain).all(|(x, [low, high])| low < x && x < high);
        let fault = (0..sums.len()).find(|&i| sums[i] * sign <= tolerance && inside(probes.row(i)));
        fault.map_or(Ok(()), |at| {
            Err(Error::Singular {
                name: "operator".into(),
                reason: format!(
                    "the coefficient of its highest derivative vanishes or changes sign near x = {}, where the equation \
                     degenerates: divide the domain there, or regularise the coefficient",
                    probes.row(at)
                ),
            })
        })
    }

    fn check_boundary(&self) -> Result<()> {
        for boundary in &self.boundary {
            self.check_condition(boundary)?;
        }
        for axis in 0..self.dim() {
            let given = self.boundary.iter().filter(|b| b.face.axis == axis).count();
            let needed = self.order(axis);
            if self.periodic[axis] && given > 0 {
                return Err(Error::parameter(
                    format!("boundary axis {axis}"),
                    format!("periodic and {given} conditions"),
                    "a periodic axis has no other conditions",
                ));
            }
            if !self.periodic[axis] && given < needed && self.observations.is_empty() {
                return Err(Error::parameter(
                    format!("boundary axis {axis}"),
                    format!("{given} conditions"),
                    format!(
                        "derivatives of order {needed} along this axis need {needed} conditions on its two faces \
                         (initial conditions count; or make it periodic, or give observations)"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_condition(&self, boundary: &Boundary) -> Result<()> {
        let Boundary { face, condition } = boundary;
        let name = format!("boundary axis {} {:?}", face.axis, face.side).to_lowercase();
        if face.axis >= self.dim() {
            return Err(Error::parameter(name, face.axis, format!("the domain has {} axes", self.dim())));
        }
        let usable = match condition {
            Condition::Robin { value, slope, .. } => {
                value.is_finite() && slope.is_finite() && (*value != 0.0 || *slope != 0.0)
            }
            Condition::Dirichlet(_) | Condition::Neumann(_) => true,
        };
        if !usable {
            return Err(Error::parameter(
                name,
                format!("{condition:?}"),
                "α and β are finite and not both zero",
            ));
        }
        let mut axes = self.probe_axes();
        axes[face.axis] = Array1::from_elem(1, self.coordinate(*face));
        check_data(&name, condition.data(), &tensor_grid(&axes))
    }

    fn check_observations(&self) -> Result<()> {
        for observation in &self.observations {
            let expected = format!("[{}, {}]", observation.values.len(), self.dim());
            if observation.points.dim() != (observation.values.len(), self.dim()) {
                return Err(Error::shape("observation points", expected, observation.points.shape()));
            }
            if !(observation.noise > 0.0 && observation.noise.is_finite()) {
                return Err(Error::parameter("observation noise", observation.noise, "finite and positive"));
            }
            let samples = Data::samples(observation.points.clone(), observation.values.clone())?;
            check_data("observations", &samples, &observation.points)?;
        }
        Ok(())
    }
}

fn check_coefficient(index: usize, coefficient: &Data, probes: &Array2<f64>) -> Result<()> {
    if let Data::Samples(_) = coefficient {
        return Err(Error::Unsupported(format!("coefficient of term {index}: give a closure, not samples")));
    }
    let values = coefficient.at(probes)?;
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Singular {
            name: format!("coefficient of term {index}"),
            reason: format!(
                "it is {} at x = {}: multiply the equation by the denominator, or cut the point out of the domain",
                values[at],
                probes.row(at)
            ),
        }),
    }
}

fn check_data(name: &str, data: &Data, probes: &Array2<f64>) -> Result<()> {
    let owned;
    let (values, points) = match data {
        Data::Samples(samples) => (&samples.values, &samples.points),
        _ => {
            owned = data.at(probes)?;
            (&owned, probes)
        }
    };
    if points.ncols() != probes.ncols() {
        return Err(Error::shape(name, format!("[points, {}]", probes.ncols()), points.shape()));
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::parameter(
            name,
            format!("{} at x = {}", values[at], points.row(at)),
            "data must be finite on the whole closed domain: cut the point out of it, or give samples without it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::error::Error;

    fn poisson() -> Problem {
        Problem::new(&[[0.0, 1.0]]).operator(DifferentialOperator::laplacian(1)).dirichlet_everywhere(0.0)
    }

    fn message(problem: &Problem) -> String {
        problem.validate().expect_err("ill-posed").to_string()
    }

    #[test]
    fn a_missing_boundary_is_named() {
        let mut problem = poisson();
        assert!(problem.validate().is_ok());
        problem.boundary.pop();
        assert!(message(&problem).contains("boundary axis 0 = 1 conditions"));
        assert!(problem.clone().periodic(0).validate().is_err());
    }

    #[test]
    fn a_wave_needs_two_initial_conditions() {
        let wave = Problem::new(&[[0.0, 1.0], [0.0, 1.0]])
            .operator(
                DifferentialOperator::default()
                    .with(Derivative::along(1, 2), 1.0)
                    .with(Derivative::along(0, 2), -1.0),
            )
            .dirichlet(Face::low(0), 0.0)
            .dirichlet(Face::high(0), 0.0)
            .initial(1, 0.0);
        assert!(message(&wave).contains("axis 1"));
        assert!(wave.initial_rate(1, 0.0).validate().is_ok());
    }

    #[test]
    fn non_finite_data_and_singular_coefficients_are_named() {
        assert!(
            message(&poisson().source(Data::function(|x| 1.0 / x[0]))).starts_with("source = inf at x = [0]")
        );
        assert!(message(&poisson().dirichlet(Face::low(0), f64::NAN)).contains("boundary axis 0 low"));
        let with =
            |c: Data| poisson().operator(DifferentialOperator::default().with(Derivative::along(0, 2), c));
        let pole = with(Data::function(|x| 1.0 / x[0])).validate();
        assert!(matches!(pole, Err(Error::Singular { .. })));
        assert!(message(&with(Data::function(|x| x[0] - 0.4))).contains("degenerates"));
        assert!(with(Data::function(|x| x[0])).validate().is_ok());
        assert!(message(&poisson().noise(-1.0, 0.0)).contains("source noise"));
    }

    #[test]
    fn axes_and_orders_are_checked() {
        let bad = |d| poisson().operator(DifferentialOperator::default().with(d, 1.0));
        assert!(bad(Derivative::along(1, 2)).validate().is_err());
        assert!(bad(Derivative::along(0, 5)).validate().is_err());
        assert!(bad(Derivative::along(7, 1)).validate().is_err());
        assert!(Problem::new(&[[1.0, 0.0]]).validate().is_err());
        assert!(poisson().require_resolution(0, 10, 100.0).is_err());
        assert!(poisson().require_resolution(0, 40, 100.0).is_ok());
    }
}
