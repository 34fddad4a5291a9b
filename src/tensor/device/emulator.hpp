// Runs functions for a GPU on the processor: every thread of a block is a fibre, and one block runs at a time.
#include <cmath>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

typedef long long Int;
#define __global__
#define __device__
#define __shared__ static
#define __restrict__

namespace emulator {
const int threads = 256;
const int stack = 1 << 15;
struct Index { unsigned x; };
Index block, thread;
ucontext_t home, fibres[threads];
bool alive[threads];
int current;
void (*body)(void *);
void *data;

void enter() {
    body(data);
    alive[current] = false;
    swapcontext(&fibres[current], &home);
}

void run(Int blocks) {
    std::vector<char> stacks(threads * (size_t)stack);
    for (Int b = 0; b < blocks; b++) {
        block.x = (unsigned)b;
        for (int t = 0; t < threads; t++) {
            getcontext(&fibres[t]);
            fibres[t].uc_stack.ss_sp = &stacks[t * (size_t)stack];
            fibres[t].uc_stack.ss_size = stack;
            fibres[t].uc_link = nullptr;
            makecontext(&fibres[t], enter, 0);
            alive[t] = true;
        }
        for (bool any = true; any;) {
            any = false;
            for (int t = 0; t < threads; t++) {
                if (!alive[t]) continue;
                current = t;
                thread.x = (unsigned)t;
                swapcontext(&home, &fibres[t]);
                any = any || alive[t];
            }
        }
    }
}

template <class T> T from(unsigned long long bits) {
    static_assert(sizeof(T) == 8, "parameters take eight bytes");
    T value;
    std::memcpy(&value, &bits, 8);
    return value;
}

template <class... A, size_t... I>
void call(void (*f)(A...), const unsigned long long *arguments, Int blocks, std::index_sequence<I...>) {
    auto once = [=] { f(from<A>(arguments[I])...); };
    body = [](void *p) { (*(decltype(once) *)p)(); };
    data = &once;
    run(blocks);
}

template <class... A> int launch(void (*f)(A...), const unsigned long long *arguments, Int count, Int blocks) {
    if (count != (Int)sizeof...(A)) return (int)sizeof...(A);
    call(f, arguments, blocks, std::index_sequence_for<A...>());
    return -1;
}
} // namespace emulator

#define blockIdx emulator::block
#define threadIdx emulator::thread
inline void __syncthreads() { swapcontext(&emulator::fibres[emulator::current], &emulator::home); }
inline void sincos_(double x, double *s, double *c) { *s = std::sin(x); *c = std::cos(x); }
using std::sqrt; using std::floor; using std::ceil; using std::fabs; using std::log; using std::exp; using std::atan2; using std::hypot; using std::sin; using std::cos; using std::tanh; using std::erf; using std::pow;

// launch_NAME(arguments, their number, blocks): −1, or how many arguments the function takes.
#define KERNEL(name, ...)                                                                                       \
    void name(__VA_ARGS__);                                                                                     \
    extern "C" int launch_##name(const unsigned long long *arguments, Int count, Int blocks) {                  \
        return emulator::launch(&name, arguments, count, blocks);                                               \
    }                                                                                                           \
    void name(__VA_ARGS__)
