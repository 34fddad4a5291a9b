# Everything that CI checks.
check:
    .ci/run

# The tests alone.
test:
    cargo test

# The main job on built-in data.
demo:
    cargo run --release -- ct demo
