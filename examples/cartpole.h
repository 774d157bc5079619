/*
 * CartPole-v1 and the policies for it that swarm/cartpole.onnx generates: what robot.c,
 * ort_handoff.c and swarm share. C99 and C++.
 *
 * The plant is that of Barto, Sutton and Anderson (1983), without friction, as Gymnasium has it; a
 * policy is a 4-16-2 network whose greater output says where to push.
 */
#ifndef CARTPOLE_H
#define CARTPOLE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dwf.h"

enum { CARTPOLE_INPUTS = 4, CARTPOLE_HIDDEN = 16, CARTPOLE_ACTIONS = 2 };
/* Where the tensors lie in a policy's weights. */
enum {
    CARTPOLE_WEIGHT1 = 0,
    CARTPOLE_BIAS1 = CARTPOLE_WEIGHT1 + CARTPOLE_HIDDEN * CARTPOLE_INPUTS,
    CARTPOLE_WEIGHT2 = CARTPOLE_BIAS1 + CARTPOLE_HIDDEN,
    CARTPOLE_BIAS2 = CARTPOLE_WEIGHT2 + CARTPOLE_ACTIONS * CARTPOLE_HIDDEN,
    CARTPOLE_WEIGHTS = CARTPOLE_BIAS2 + CARTPOLE_ACTIONS
};
/* Steps of an episode, 0.02 s each; a return of 475 counts as solved. */
enum { CARTPOLE_STEPS = 500, CARTPOLE_SOLVED = 475 };

/* Metres the cart may leave the middle, radians the pole may lean. */
#define CARTPOLE_TRACK 2.4
#define CARTPOLE_LEAN 0.20943951023931953

/* Metres and radians, and each a second. */
typedef struct {
    double position, velocity, angle, spin;
} cartpole;

/* One step of 0.02 s, the cart being pushed to the right or to the left. */
static inline void cartpole_step(cartpole *c, int right)
{
    const double gravity = 9.8, total_mass = 1.1, half_length = 0.5, step = 0.02;
    const double pole_mass = 0.1, force = right ? 10.0 : -10.0;
    const double sine = sin(c->angle), cosine = cos(c->angle);
    const double moment = pole_mass * half_length;
    const double push = (force + moment * c->spin * c->spin * sine) / total_mass;
    const double inertia = half_length * (4.0 / 3.0 - pole_mass * cosine * cosine / total_mass);
    const double angular = (gravity * sine - cosine * push) / inertia;
    const double linear = push - moment * angular * cosine / total_mass;
    c->position += step * c->velocity;
    c->velocity += step * linear;
    c->angle += step * c->spin;
    c->spin += step * angular;
}

/* Whether the cart has left the track or the pole has fallen. */
static inline int cartpole_is_over(const cartpole *c)
{
    return fabs(c->position) > CARTPOLE_TRACK || fabs(c->angle) > CARTPOLE_LEAN;
}

/* What a policy is shown. */
static inline void cartpole_observe(const cartpole *c, float *x)
{
    x[0] = (float)c->position;
    x[1] = (float)c->velocity;
    x[2] = (float)c->angle;
    x[3] = (float)c->spin;
}

/* The policy's two outputs. */
static inline void cartpole_forward(const float *weights, const float *x, float *y)
{
    for (int i = 0; i < CARTPOLE_ACTIONS; i++)
        y[i] = weights[CARTPOLE_BIAS2 + i];
    for (int i = 0; i < CARTPOLE_HIDDEN; i++) {
        float sum = weights[CARTPOLE_BIAS1 + i];
        for (int j = 0; j < CARTPOLE_INPUTS; j++)
            sum += weights[CARTPOLE_WEIGHT1 + i * CARTPOLE_INPUTS + j] * x[j];
        if (sum > 0)
            for (int j = 0; j < CARTPOLE_ACTIONS; j++)
                y[j] += weights[CARTPOLE_WEIGHT2 + j * CARTPOLE_HIDDEN + i] * sum;
    }
}

/* The policy's choice: whether to push to the right. */
static inline int cartpole_decide(const float *weights, const cartpole *c)
{
    float x[CARTPOLE_INPUTS], y[CARTPOLE_ACTIONS];
    cartpole_observe(c, x);
    cartpole_forward(weights, x, y);
    return y[1] > y[0];
}

/* Uniform in [-bound, bound), the same for the same three numbers (splitmix64). */
static inline double cartpole_random(uint64_t seed, uint64_t stream, uint64_t index, double bound)
{
    uint64_t z = seed;
    const uint64_t keys[] = {stream, index};
    for (int i = 0; i < 2; i++) {
        z = (z ^ keys[i]) + 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
    }
    return ((double)(z >> 11) / (double)(UINT64_C(1) << 52) - 1.0) * bound;
}

/* Almost at rest, as Gymnasium starts an episode. */
static inline cartpole cartpole_start(uint64_t seed, uint64_t episode)
{
    cartpole c;
    c.position = cartpole_random(seed, episode, 0, 0.05);
    c.velocity = cartpole_random(seed, episode, 1, 0.05);
    c.angle = cartpole_random(seed, episode, 2, 0.05);
    c.spin = cartpole_random(seed, episode, 3, 0.05);
    return c;
}

/* Whether the artifact generates such policies. */
static inline int cartpole_fits(const dwf_model *model)
{
    static const struct {
        const char *name;
        uint64_t offset, end;
    } wanted[] = {{"fc1.weight", CARTPOLE_WEIGHT1, CARTPOLE_BIAS1},
                  {"fc1.bias", CARTPOLE_BIAS1, CARTPOLE_WEIGHT2},
                  {"fc2.weight", CARTPOLE_WEIGHT2, CARTPOLE_BIAS2},
                  {"fc2.bias", CARTPOLE_BIAS2, CARTPOLE_WEIGHTS}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        dwf_tensor_info tensor;
        memset(&tensor, 0, sizeof tensor);
        tensor.struct_size = sizeof tensor;
        if (dwf_model_get_tensor(model, i, &tensor, NULL, 0) != DWF_OK ||
            strcmp(tensor.name, wanted[i].name) != 0 || tensor.offset != wanted[i].offset ||
            tensor.offset + tensor.count != wanted[i].end)
            return 0;
    }
    return 1;
}

#endif
