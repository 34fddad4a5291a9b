//! Denoisers D(x, σ) ≈ E[x₀ | x₀ + σ n = x]: networks and closed forms.
