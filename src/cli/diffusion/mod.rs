//! Diffusion methods on the command line: options, priors, samplers, and runs that can be resumed.

mod method;
mod options;
mod run;

pub use method::{ERROR, Finish, Method, Setting};
pub use options::{Chosen, Options, Rounding, Start};
pub use run::{Drawn, Ingredients, Job, Summary};
