// What networks and their training need beside products of matrices. All matrices are row-major.
// Every sum is taken in an order that depends on its length only, so that a training repeats itself
// bit by bit.
//
// gpu.rs defines: THREADS a block, a power of two; SUMS, the blocks that add up parts of one sum;
// NORM_EPSILON; and AdamW's BETA1, BETA2 and EPSILON.

typedef unsigned long long Size;

#define KERNEL extern "C" __global__ void
// Any number of blocks share the elements.
#define EACH(i, count) \
    for (Size i = blockIdx.x * (Size)THREADS + threadIdx.x; i < count; i += gridDim.x * (Size)THREADS)
// One block has a row to itself.
#define ALONG(i, columns) for (Size i = threadIdx.x; i < columns; i += THREADS)

// The sum over a block's threads, in each of them.
__device__ float block_sum(float value) {
    __shared__ float sums[THREADS];
    __syncthreads();
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// Every row becomes the bias.
KERNEL bias(const float *bias, float *y, Size count, Size columns) {
    EACH(i, count) y[i] = bias[i % columns];
}

KERNEL copy(const float *x, float *y, Size count) {
    EACH(i, count) y[i] = x[i];
}

KERNEL add(const float *a, const float *b, float *y, Size count) {
    EACH(i, count) y[i] = a[i] + b[i];
}

KERNEL add_to(const float *x, float *y, Size count) {
    EACH(i, count) y[i] += x[i];
}

KERNEL multiply(const float *a, const float *b, float *y, Size count) {
    EACH(i, count) y[i] = a[i] * b[i];
}

KERNEL add_product(const float *a, const float *b, float *y, Size count) {
    EACH(i, count) y[i] += a[i] * b[i];
}

// x Phi(x)
KERNEL gelu(const float *x, float *y, Size count) {
    EACH(i, count) y[i] = x[i] * normcdff(x[i]);
}

KERNEL gelu_back(const float *x, const float *dy, float *dx, Size count) {
    EACH(i, count) {
        float density = 0.3989423f * expf(-0.5f * x[i] * x[i]);
        dx[i] += dy[i] * (normcdff(x[i]) + x[i] * density);
    }
}

// One block a row; moments: for every row, the mean and one over the standard deviation.
KERNEL layer_norm(const float *x, const float *scale, const float *shift, float *y, float *moments,
            Size columns) {
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    moments += 2 * blockIdx.x;
    float sum = 0;
    ALONG(i, columns) sum += x[i];
    float mean = block_sum(sum) / columns;
    sum = 0;
    ALONG(i, columns) sum += (x[i] - mean) * (x[i] - mean);
    float inverse = 1 / sqrtf(block_sum(sum) / columns + NORM_EPSILON);
    ALONG(i, columns) y[i] = (x[i] - mean) * inverse * scale[i] + shift[i];
    if (threadIdx.x == 0) {
        moments[0] = mean;
        moments[1] = inverse;
    }
}

// One block a row.
KERNEL layer_norm_back(const float *x, const float *moments, const float *scale, const float *dy,
                 float *dx, Size columns) {
    x += blockIdx.x * columns;
    dx += blockIdx.x * columns;
    dy += blockIdx.x * columns;
    float mean = moments[2 * blockIdx.x], inverse = moments[2 * blockIdx.x + 1];
    float slopes = 0, products = 0;
    ALONG(i, columns) {
        slopes += dy[i] * scale[i];
        products += dy[i] * scale[i] * (x[i] - mean) * inverse;
    }
    slopes = block_sum(slopes) / columns;
    products = block_sum(products) / columns;
    ALONG(i, columns) {
        float normal = (x[i] - mean) * inverse;
        dx[i] += inverse * (dy[i] * scale[i] - slopes - normal * products);
    }
}

// One thread a column.
KERNEL layer_norm_weights(const float *x, const float *moments, const float *dy, float *by_scale,
                    float *by_shift, Size rows, Size columns) {
    EACH(i, columns) {
        float scale = 0, shift = 0;
        for (Size row = 0; row < rows; row++) {
            float slope = dy[row * columns + i];
            scale += slope * (x[row * columns + i] - moments[2 * row]) * moments[2 * row + 1];
            shift += slope;
        }
        by_scale[i] = scale;
        by_shift[i] = shift;
    }
}

// One thread a column.
KERNEL sum_rows(const float *x, float *sums, Size rows, Size columns) {
    EACH(i, columns) {
        float sum = 0;
        for (Size row = 0; row < rows; row++) sum += x[row * columns + i];
        sums[i] = sum;
    }
}

// SUMS parts of the sum of squared differences, and its mean's gradient.
KERNEL difference(const float *v, const float *target, float *by_v, float *sums, Size count) {
    float sum = 0;
    EACH(i, count) {
        float difference = v[i] - target[i];
        by_v[i] = difference * 2 / count;
        sum += difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// SUMS parts of the sum of squares.
KERNEL squares(const float *x, float *sums, Size count) {
    float sum = 0;
    EACH(i, count) sum += x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// adamw.rs says what it does; sums: those of the gradient's squares.
KERNEL adamw(const float *gradient, const float *sums, float *weights, float *average, float *first,
             float *second, Size count, float clip, float rate, float scale, float shrink,
             float follow) {
    float sum = 0;
    ALONG(i, SUMS) sum += sums[i];
    float norm = sqrtf(block_sum(sum));
    float shorten = norm > clip ? clip / norm : 1;
    EACH(i, count) {
        float g = gradient[i] * shorten;
        float m = first[i], v = second[i], weight = weights[i], mean = average[i];
        m += (1 - BETA1) * (g - m);
        v += (1 - BETA2) * (g * g - v);
        weight = weight * shrink - rate * m / (sqrtf(v) * scale + EPSILON);
        first[i] = m;
        second[i] = v;
        weights[i] = weight;
        average[i] = mean + follow * (weight - mean);
    }
}
