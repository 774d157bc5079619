// The swarm in an SDL window.
#pragma once

#include <SDL.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "canvas.hpp"
#include "png.hpp"
#include "sprites.hpp"
#include "swarm.hpp"

class window {
public:
    window()
    {
        if (SDL_Init(SDL_INIT_VIDEO) != 0)
            fail("SDL_Init");
        window_.reset(SDL_CreateWindow("libdwf swarm", SDL_WINDOWPOS_CENTERED,
                                       SDL_WINDOWPOS_CENTERED, width, height, 0));
        if (!window_)
            fail("SDL_CreateWindow");
        renderer_.reset(SDL_CreateRenderer(window_.get(), -1, 0));
        if (!renderer_)
            fail("SDL_CreateRenderer");
        SDL_SetRenderDrawBlendMode(renderer_.get(), SDL_BLENDMODE_BLEND);
        portraits_ = texture(SDL_TEXTUREACCESS_STATIC, atlas_w, atlas_h);
        captions_ = texture(SDL_TEXTUREACCESS_TARGET, width, header + footer);
        SDL_SetTextureBlendMode(captions_.get(), SDL_BLENDMODE_NONE);
        sheet_ = texture(SDL_TEXTUREACCESS_TARGET, static_cast<int>(sprites::scale * sprite::width),
                         static_cast<int>(sprites::scale * sprite::height));
        SDL_SetTextureScaleMode(sheet_.get(), SDL_ScaleModeLinear);
        draw_sheet();
        draw_captions();
    }

    // Whether the user has closed the window.
    bool closed()
    {
        bool closed = false;
        for (SDL_Event event; SDL_PollEvent(&event);)
            closed |= event.type == SDL_QUIT ||
                      (event.type == SDL_KEYDOWN && event.key.keysym.sym == SDLK_ESCAPE);
        return closed;
    }

    // Draws the swarm, with a line that sums it up and one on how the program does.
    void draw(const swarm &swarm, const std::string &summary, const std::string &status)
    {
        update(summary_, summary, {width / 2, 16, width / 2, 36}, 42, 14, bright);
        update(status_, status, {width / 2, header, width / 2, footer}, header + footer - 15, 11,
               dim);
        clear();
        copy_captions({0, 0, width, header}, 0);
        copy_captions({0, header, width, footer}, height - footer);
        draw_rails();
        for (int i = 0; i < swarm::size; i++)
            draw_agent(swarm.agents()[static_cast<std::size_t>(i)], i);
        SDL_RenderGeometry(renderer_.get(), portraits_.get(), quads_.data(),
                           static_cast<int>(quads_.size()), nullptr, 0);
        quads_.clear();
        canvas_.flush(renderer_.get());
        sprites_.flush(renderer_.get(), sheet_.get());
    }

    void present() { SDL_RenderPresent(renderer_.get()); }

    // Writes what was drawn and not yet presented to a PNG file.
    void save(const std::string &path)
    {
        std::vector<unsigned char> pixels(width * height * 3);
        if (SDL_RenderReadPixels(renderer_.get(), nullptr, SDL_PIXELFORMAT_RGB24, pixels.data(),
                                 width * 3) != 0)
            fail("SDL_RenderReadPixels");
        png::write(path, width, height, pixels);
    }

private:
    static constexpr int width = 1280, height = 800, header = 92, footer = 34, margin = 24;
    static constexpr float cell_w = static_cast<float>(width - 2 * margin) / swarm::columns;
    static constexpr float cell_h = static_cast<float>(height - header - footer) / swarm::rows;
    static constexpr float ground = 33, half_track = 24;
    // A policy's weights as a picture: a column a hidden unit, with its four weights, its bias and
    // its weight in each action.
    static constexpr int portrait_w = CARTPOLE_HIDDEN;
    static constexpr int portrait_h = CARTPOLE_INPUTS + 1 + CARTPOLE_ACTIONS;
    static constexpr int atlas_w = swarm::columns * portrait_w, atlas_h = swarm::rows * portrait_h;
    static constexpr float pixel_w = 3, pixel_h = 2;

    static constexpr SDL_Color night{13, 17, 23, 255};
    static constexpr SDL_Color bright{230, 237, 243, 255}, dim{139, 148, 158, 255};
    static constexpr SDL_Color track{48, 54, 61, 255}, cart{201, 209, 217, 255};
    static constexpr SDL_Color young{88, 166, 255, 255}, old{126, 231, 135, 255};
    static constexpr SDL_Color red{255, 123, 114, 255}, gold{240, 196, 80, 255};
    static constexpr SDL_Color positive{255, 166, 87, 255}, negative{88, 166, 255, 255};

    [[noreturn]] static void fail(const char *what)
    {
        throw std::runtime_error(std::string(what) + ": " + SDL_GetError());
    }

    static SDL_Color mix(SDL_Color a, SDL_Color b, float t)
    {
        const auto channel = [t](Uint8 a, Uint8 b) {
            return static_cast<Uint8>(std::lround(a + (b - a) * t));
        };
        return {channel(a.r, b.r), channel(a.g, b.g), channel(a.b, b.b), channel(a.a, b.a)};
    }

    static SDL_Color faded(SDL_Color colour, float opacity)
    {
        colour.a = static_cast<Uint8>(std::lround(colour.a * opacity));
        return colour;
    }

    static SDL_FPoint origin(int place)
    {
        return {margin + cell_w * (static_cast<float>(place % swarm::columns) + 0.5f),
                header + cell_h * static_cast<float>(place / swarm::columns) + ground};
    }

    void clear()
    {
        SDL_SetRenderDrawColor(renderer_.get(), night.r, night.g, night.b, night.a);
        SDL_RenderClear(renderer_.get());
    }

    // The words that stay the same: header and footer, one below the other.
    void draw_captions()
    {
        SDL_SetRenderTarget(renderer_.get(), captions_.get());
        clear();
        canvas_.text("libdwf swarm", {margin, 42}, 24, bright);
        canvas_.text(std::to_string(swarm::size) +
                         " carts, each steered by its own network, which nobody trained: the "
                         "pattern below a cart is its weights",
                     {margin, 74}, 11.5f, dim);
        SDL_FPoint at{margin + 6, header + footer - 15};
        for (const auto &[colour, meaning] : {legend{young, "just generated"},
                                              {old, "about to retire"},
                                              {gold, "retired"},
                                              {red, "fallen"}}) {
            canvas_.disc({at.x, at.y - 5}, 5, colour);
            canvas_.text(meaning, {at.x + 12, at.y}, 11, dim);
            at.x += canvas::text_width(meaning, 11) + 36;
        }
        canvas_.flush(renderer_.get());
        SDL_SetRenderTarget(renderer_.get(), nullptr);
    }

    // Redraws a line of the captions, which is all that `where` holds, if it has changed.
    void update(std::string &line, const std::string &now, const SDL_Rect &where, float y,
                float size, SDL_Color colour)
    {
        if (line == now)
            return;
        line = now;
        SDL_SetRenderTarget(renderer_.get(), captions_.get());
        SDL_SetRenderDrawColor(renderer_.get(), night.r, night.g, night.b,
                               night.a);
        SDL_RenderFillRect(renderer_.get(), &where);
        canvas_.text(line, {width - margin - canvas::text_width(line, size), y}, size, colour);
        canvas_.flush(renderer_.get());
        SDL_SetRenderTarget(renderer_.get(), nullptr);
    }

    void draw_sheet()
    {
        SDL_SetRenderTarget(renderer_.get(), sheet_.get());
        SDL_SetRenderDrawColor(renderer_.get(), 255, 255, 255, 0);
        SDL_RenderClear(renderer_.get());
        sprites::paint(canvas_);
        canvas_.flush(renderer_.get());
        SDL_SetRenderTarget(renderer_.get(), nullptr);
    }

    void copy_captions(const SDL_Rect &from, int y)
    {
        const SDL_Rect to{0, y, from.w, from.h};
        SDL_RenderCopy(renderer_.get(), captions_.get(), &from, &to);
    }

    void draw_rails()
    {
        std::array<SDL_FRect, swarm::size> rails;
        for (int i = 0; i < swarm::size; i++) {
            const auto [x, y] = origin(i);
            rails[static_cast<std::size_t>(i)] = {std::round(x - half_track), std::round(y),
                                                  2 * half_track, 1};
        }
        SDL_SetRenderDrawColor(renderer_.get(), track.r, track.g, track.b, track.a);
        SDL_RenderFillRectsF(renderer_.get(), rails.data(), swarm::size);
    }

    void draw_agent(const agent &agent, int place)
    {
        const auto [x, y] = origin(place);
        // Nobody has been here yet.
        if (agent.age == 0 && agent.now != agent::phase::alive)
            return;
        const bool alive = agent.now == agent::phase::alive;
        // From 0 to 1 over the farewell of one that fell or retired.
        const float gone = alive ? 0 : 1 - static_cast<float>(agent.wait) / swarm::farewell;
        const float opacity = 1 - gone * gone;
        const float life = static_cast<float>(agent.age) / static_cast<float>(CARTPOLE_STEPS);
        const SDL_Color pole = alive                               ? mix(young, old, life)
                               : agent.now == agent::phase::fallen ? red
                                                                   : gold;
        draw_portrait(agent, place, {x, y + 5}, opacity);

        const auto position = static_cast<float>(agent.body.position / CARTPOLE_TRACK);
        const SDL_FPoint hinge{x + position * half_track, y - 5};
        sprites_.stamp(cart_sprite, hinge, 0, faded(cart, opacity));
        sprites_.stamp(pole_sprite, hinge, lean(agent, gone), faded(pole, opacity));
        sprites_.stamp(hinge_sprite, hinge, 0, faded(bright, opacity));
    }

    // A pole that has fallen goes on falling, for the eye alone.
    static float lean(const agent &agent, float gone)
    {
        const auto angle = static_cast<float>(agent.body.angle);
        if (agent.now != agent::phase::fallen)
            return angle;
        return angle + (std::copysign(1.5f, angle) - angle) * std::min(1.0f, 2 * gone * gone);
    }

    void draw_portrait(const agent &agent, int place, SDL_FPoint top, float opacity)
    {
        const SDL_Rect at{place % swarm::columns * portrait_w, place / swarm::columns * portrait_h,
                          portrait_w, portrait_h};
        std::uint64_t &painted = painted_[static_cast<std::size_t>(place)];
        if (painted != agent.network)
            paint(agent, at);
        painted = agent.network;
        const SDL_FRect to{std::round(top.x - pixel_w * portrait_w / 2), std::round(top.y),
                           pixel_w * portrait_w, pixel_h * portrait_h};
        // A new network lights up.
        const bool alive = agent.now == agent::phase::alive;
        const float fresh = alive ? std::max(0.0f, 1 - static_cast<float>(agent.age) / 25) : 0;
        if (fresh > 0)
            canvas_.box({to.x - 2, to.y - 2, to.w + 4, to.h + 4}, 2, faded(young, 0.7f * fresh));
        const auto put = [&](float right, float down) {
            quads_.push_back({{to.x + right * to.w, to.y + down * to.h},
                              faded({255, 255, 255, 255}, opacity),
                              {(static_cast<float>(at.x) + right * portrait_w) / atlas_w,
                               (static_cast<float>(at.y) + down * portrait_h) / atlas_h}});
        };
        put(0, 0), put(1, 0), put(1, 1);
        put(0, 0), put(1, 1), put(0, 1);
    }

    void paint(const agent &agent, const SDL_Rect &at)
    {
        std::array<SDL_Color, portrait_w * portrait_h> pixels{};
        for (std::size_t unit = 0; unit < CARTPOLE_HIDDEN; unit++) {
            const auto put = [&](std::size_t row, std::size_t weight) {
                pixels[row * CARTPOLE_HIDDEN + unit] = colour_of(agent.policy[weight]);
            };
            for (std::size_t i = 0; i < CARTPOLE_INPUTS; i++)
                put(i, CARTPOLE_WEIGHT1 + unit * CARTPOLE_INPUTS + i);
            put(CARTPOLE_INPUTS, CARTPOLE_BIAS1 + unit);
            for (std::size_t i = 0; i < CARTPOLE_ACTIONS; i++)
                put(CARTPOLE_INPUTS + 1 + i, CARTPOLE_WEIGHT2 + i * CARTPOLE_HIDDEN + unit);
        }
        SDL_UpdateTexture(portraits_.get(), &at, pixels.data(), portrait_w * sizeof(SDL_Color));
    }

    static SDL_Color colour_of(float weight)
    {
        return mix({22, 27, 34, 255}, weight > 0 ? positive : negative,
                   std::tanh(std::fabs(weight) * 1.5f));
    }

    struct legend {
        SDL_Color colour;
        const char *meaning;
    };

    struct deleter {
        void operator()(SDL_Window *window) const { SDL_DestroyWindow(window); }
        void operator()(SDL_Renderer *renderer) const { SDL_DestroyRenderer(renderer); }
        void operator()(SDL_Texture *texture) const { SDL_DestroyTexture(texture); }
    };
    struct quit {
        ~quit() { SDL_Quit(); }
    };

    using texture_pointer = std::unique_ptr<SDL_Texture, deleter>;

    texture_pointer texture(SDL_TextureAccess access, int w, int h)
    {
        texture_pointer texture(
            SDL_CreateTexture(renderer_.get(), SDL_PIXELFORMAT_RGBA32, access, w, h));
        if (!texture)
            fail("SDL_CreateTexture");
        SDL_SetTextureBlendMode(texture.get(), SDL_BLENDMODE_BLEND);
        return texture;
    }

    quit quit_;
    std::unique_ptr<SDL_Window, deleter> window_;
    std::unique_ptr<SDL_Renderer, deleter> renderer_;
    texture_pointer portraits_, captions_, sheet_;
    canvas canvas_;
    sprites sprites_;
    std::string summary_, status_; // as the captions have them
    std::vector<SDL_Vertex> quads_; // of the portraits, two triangles each
    // Which network each place's portrait is of.
    std::vector<std::uint64_t> painted_ =
        std::vector<std::uint64_t>(swarm::size, std::numeric_limits<std::uint64_t>::max());
};
