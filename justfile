# Everything that CI checks.
check:
    .ci/run

# The tests alone.
test:
    cargo test

# The main job on built-in data.
demo:
    cargo run --release -- ct demo

# What can be checked of the feature `cuda` without a GPU.
cuda-check folder="target/cuda-toolchain":
    .ci/cuda {{folder}}
