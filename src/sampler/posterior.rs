//! Uncertainty: many posterior samples, summarised voxel by voxel.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::observe::{Observer, Termination};
use crate::sampler::{Problem, Sampler, sample};
use crate::tensor::Real;

/// Voxelwise summaries of posterior samples, each with the shape of one sample.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Mean.
    pub mean: Tensor,
    /// Standard deviation (with N − 1).
    pub deviation: Tensor,
    /// Quantiles, in the order asked for, linearly interpolated.
    pub quantiles: Vec<(f64, Tensor)>,
    /// The samples.
    pub samples: Vec<Tensor>,
    /// How the last run ended.
    pub termination: Termination,
}

/// Runs a sampler `count` times with seeds `seed`, `seed + 1`, … and summarises the samples. The observer sees
/// every step of every run; if it breaks, the samples finished so far are summarised.
///
/// Means and deviations are those of the sampler: read them as posterior uncertainty only for samplers that
/// say so.
///
/// # Errors
/// [`Error::Parameter`] for fewer than 2 samples or quantiles outside 0…1; what the sampler reports.
pub fn posterior(
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    seed: u64,
    count: usize,
    quantiles: &[f64],
    observer: &mut dyn Observer,
) -> Result<Posterior> {
    if count < 2 {
        return Err(Error::parameter("samples", count, "a spread needs at least 2"));
    }
    if let Some(q) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        return Err(Error::parameter("quantile", q, "must be 0 to 1"));
    }
    let mut samples = Vec::with_capacity(count);
    let mut termination = Termination::Completed;
    for k in 0..count as u64 {
        let solution = sample(sampler, problem, seed + k, observer)?;
        termination = solution.termination;
        if termination == Termination::Cancelled && samples.len() >= 2 {
            break;
        }
        samples.push(solution.value);
        if termination == Termination::Cancelled {
            break;
        }
    }
    Posterior::of(samples, quantiles, termination)
}

impl Posterior {
    /// Summarises samples of one shape. One sample has deviation 0.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::{observe::Termination, sampler::Posterior};
    /// let sample = |v: f64| Tensor::new(&[v], &Device::Cpu);
    /// let posterior = Posterior::of(vec![sample(1.0)?, sample(3.0)?], &[0.25], Termination::Completed)?;
    /// assert_eq!(posterior.mean.to_vec1::<f64>()?, [2.0]);
    /// assert_eq!(posterior.quantiles[0].1.to_vec1::<f64>()?, [1.5]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] for no samples, [`Error::Shape`] for samples of different shapes.
    pub fn of(samples: Vec<Tensor>, quantiles: &[f64], termination: Termination) -> Result<Self> {
        let Some(first) = samples.first() else {
            return Err(Error::parameter("samples", 0, "a summary needs at least 1"));
        };
        if let Some(other) = samples.iter().find(|s| s.dims() != first.dims()) {
            return Err(Error::shape("samples", format!("{:?}", first.dims()), other.dims()));
        }
        summarise(samples, quantiles, termination)
    }
}

fn summarise(samples: Vec<Tensor>, quantiles: &[f64], termination: Termination) -> Result<Posterior> {
    let first = &samples[0];
    let data = samples.iter().map(f64::to_vec).collect::<Result<Vec<_>>>()?;
    let n = data.len() as f64;
    let tensor = |values: Vec<f64>| -> Result<Tensor> {
        Ok(f64::tensor(values, first.dims())?.to_dtype(first.dtype())?.to_device(first.device())?)
    };
    let voxels: Vec<Vec<f64>> = (0..first.elem_count())
        .into_par_iter()
        .map(|i| {
            let mut values: Vec<f64> = data.iter().map(|d| d[i]).collect();
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
            values.sort_by(f64::total_cmp);
            let mut row = vec![mean, variance.sqrt()];
            row.extend(quantiles.iter().map(|q| interpolate(&values, *q)));
            row
        })
        .collect();
    let column = |c: usize| tensor(voxels.iter().map(|row| row[c]).collect());
    Ok(Posterior {
        mean: column(0)?,
        deviation: column(1)?,
        quantiles: quantiles
            .iter()
            .enumerate()
            .map(|(c, q)| Ok((*q, column(c + 2)?)))
            .collect::<Result<_>>()?,
        samples,
        termination,
    })
}

fn interpolate(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}
