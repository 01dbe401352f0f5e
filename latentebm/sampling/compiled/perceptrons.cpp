// Energies of an ensemble of SiLU perceptrons and their gradients in the input, a tile of points at a time.
//
// A tile's layers stay in the cache from the first to the last and back. Points lie along the lanes of a vector: every
// activation is then a plain loop, and a weight meets a whole tile at once.

#include <algorithm>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;  // two vectors of points by ROWS outputs fill the registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4;
#else
constexpr int LANES = 4, ROWS = 4;
#endif
constexpr int TILE = 2 * LANES;

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int Bits __attribute__((vector_size(4 * LANES)));

struct Net {
    int members, layers;
    const int* width;              // layers + 1 of them, from the input to the output of one
    const float* const* forward;   // weights of each layer, all members, packed as `multiply` reads them
    const float* const* backward;  // the same, transposed
    const float* const* bias;
    float limit;  // bound of a member's output, or 0 for none
};

// 1 / (1 + exp(-h)) by exp(x) = 2^n exp(r), |r| <= ln(2) / 2, to about 1e-7.
static inline Vec sigmoid(Vec h) {
    Vec x = -h;
    x = x > 88.0f ? Vec{} + 88.0f : x;
    x = x < -87.0f ? Vec{} - 87.0f : x;
    const Vec shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds, and leaves n in the last bits
    const Vec n = shifted - 12582912.0f;
    const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln(2) in two parts, the first exact in n
    Vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    return 1.0f / (1.0f + (Vec)((Bits)p + ((Bits)shifted << 23)));
}

// By its series near 0, where twice a sigmoid less 1 would round a small value away.
static inline Vec hyperbolic_tangent(Vec y) {
    const Vec square = y * y;
    const Vec series = y - y * square * (1.0f / 3 - square * (2.0f / 15 - square * (17.0f / 315)));
    return square < 0.04f ? series : 2.0f * sigmoid(2.0f * y) - 1.0f;
}

// R outputs of a linear layer for one tile; returns where the next outputs' weights start.
template <int R>
static const float* multiply(const float* weight, const float* bias, const Vec* in, int n_in, Vec* out) {
    Vec sum[R][2];
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = Vec{} + (bias ? bias[r] : 0.0f);
    for (int k = 0; k < n_in; ++k, weight += R)
        for (int r = 0; r < R; ++r) {
            sum[r][0] += weight[r] * in[2 * k];
            sum[r][1] += weight[r] * in[2 * k + 1];
        }
    for (int r = 0; r < R; ++r) out[2 * r] = sum[r][0], out[2 * r + 1] = sum[r][1];
    return weight;
}

static void linear(const float* weight, const float* bias, const Vec* in, int n_in, Vec* out, int n_out) {
    const auto group = [&](auto multiply_group, int rows) {
        weight = multiply_group(weight, bias, in, n_in, out);
        bias = bias ? bias + rows : nullptr, out += 2 * rows, n_out -= rows;
    };
    while (n_out >= ROWS) group(multiply<ROWS>, ROWS);
    if (n_out >= 4) group(multiply<4>, 4);
    if (n_out >= 2) group(multiply<2>, 2);
    if (n_out) group(multiply<1>, 1);
}

// Replace h by silu(h), and write silu'(h) beside it.
static void activate(Vec* h, Vec* slope, int n) {
    for (int i = 0; i < n; ++i) {
        const Vec s = sigmoid(h[i]), active = h[i] * s;
        h[i] = active, slope[i] = s + active * (1.0f - s);
    }
}

// Add one member's share of the mean energy and gradient of a tile. `room` holds activations and slopes.
static void add_member(const Net& net, int m, const Vec* in, Vec* energy, Vec* grad, Vec* room) {
    const int last = net.layers - 1, *width = net.width;
    std::vector<Vec*> active(net.layers), slope(net.layers);
    const Vec* below = in;
    for (int l = 0; l < last; ++l) {
        const int n = 2 * width[l + 1];
        active[l] = room, slope[l] = room + n, room += 2 * n;
        linear(net.forward[l] + m * width[l] * width[l + 1], net.bias[l] + m * width[l + 1], below, width[l], active[l],
               width[l + 1]);
        activate(active[l], slope[l], n);
        below = active[l];
    }
    Vec top[2], value[2];
    linear(net.forward[last] + m * width[last], net.bias[last] + m, below, width[last], value, 1);
    for (int v = 0; v < 2; ++v) {
        const Vec tanh = net.limit ? hyperbolic_tangent(value[v] / net.limit) : Vec{};
        energy[v] += (net.limit ? net.limit * tanh : value[v]) / float(net.members);
        top[v] = (1.0f - tanh * tanh) / float(net.members);
    }
    // Backwards an activation is no longer needed: the gradient takes its place.
    Vec* up = top;
    for (int l = last; l >= 0; --l) {
        Vec* down = l ? active[l - 1] : room;
        linear(net.backward[l] + m * width[l] * width[l + 1], nullptr, up, width[l + 1], down, width[l]);
        for (int i = 0; l && i < 2 * width[l]; ++i) down[i] *= slope[l - 1][i];
        up = down;
    }
    for (int i = 0; i < 2 * width[0]; ++i) grad[i] += up[i];
}

static void do_tile(const Net& net, int count, const float* x, float* energy, float* grad) {
    const int dim = net.width[0];
    int size = 3 * dim;  // points, gradient of all members, gradient of one
    for (int l = 1; l < net.layers; ++l) size += 2 * net.width[l];
    static thread_local std::vector<Vec> room;
    if (room.size() < size_t(2 * size)) room.resize(2 * size);
    Vec *in = room.data(), *total = in + 2 * dim, sum[2] = {};
    std::fill(in, in + 4 * dim, Vec{});
    for (int c = 0; c < count; ++c)
        for (int d = 0; d < dim; ++d) ((float*)in)[d * TILE + c] = x[c * dim + d];
    for (int m = 0; m < net.members; ++m) add_member(net, m, in, sum, total, in + 4 * dim);
    std::copy_n((const float*)sum, count, energy);
    for (int c = 0; c < count; ++c)
        for (int d = 0; d < dim; ++d) grad[c * dim + d] = ((const float*)total)[d * TILE + c];
}

extern "C" int rows() { return ROWS; }

extern "C" void value_and_grad(int threads, const Net* net, long n, const float* x, float* energy, float* grad) {
    const int dim = net->width[0];
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long first = 0; first < n; first += TILE)
        do_tile(*net, int(std::min<long>(TILE, n - first)), x + first * dim, energy + first, grad + first * dim);
}
