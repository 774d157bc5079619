// Shapes drawn once, in white, and then stamped in any colour: two triangles each, where their
// outline takes dozens.
#pragma once

#include <SDL.h>

#include <cmath>
#include <vector>

#include "canvas.hpp"

// Where a shape is in the sprites' texture, and its point that is put on the screen.
struct sprite {
    SDL_FRect at;
    SDL_FPoint pin;

    static constexpr float width = 32, height = 40; // of the texture
};

// An upright pole, a cart and the hinge between them.
inline constexpr sprite pole_sprite{{0, 0, 7, 32}, {3.5f, 28}};
inline constexpr sprite cart_sprite{{8, 0, 18, 9}, {9, 2}};
inline constexpr sprite hinge_sprite{{8, 10, 8, 8}, {4, 4}};

class sprites {
public:
    // Texels a pixel each way, so that shapes stay sharp wherever they are stamped.
    static constexpr float scale = 2;

    static void paint(canvas &canvas)
    {
        const SDL_Color white{255, 255, 255, 255};
        const auto [pole_x, pole_y] = pin(pole_sprite);
        canvas.line({pole_x, pole_y}, {pole_x, pole_y - scale * 25}, scale * 3, white);
        const auto [cart_x, cart_y] = pin(cart_sprite);
        canvas.box({cart_x - scale * 7, cart_y, scale * 14, scale * 5}, scale * 1.5f, white);
        canvas.disc(pin(hinge_sprite), scale * 1.8f, white);
    }

    // With its pin at `at`, turned clockwise by `angle`.
    void stamp(const sprite &sprite, SDL_FPoint at, float angle, SDL_Color colour)
    {
        const float sine = std::sin(angle), cosine = std::cos(angle);
        const auto put = [&](float right, float down) {
            const float x = right * sprite.at.w - sprite.pin.x;
            const float y = down * sprite.at.h - sprite.pin.y;
            vertices_.push_back({{at.x + x * cosine - y * sine, at.y + x * sine + y * cosine},
                                 colour,
                                 {(sprite.at.x + right * sprite.at.w) / sprite::width,
                                  (sprite.at.y + down * sprite.at.h) / sprite::height}});
        };
        put(0, 0), put(1, 0), put(1, 1);
        put(0, 0), put(1, 1), put(0, 1);
    }

    // Draws what was stamped.
    void flush(SDL_Renderer *renderer, SDL_Texture *texture)
    {
        SDL_RenderGeometry(renderer, texture, vertices_.data(), static_cast<int>(vertices_.size()),
                           nullptr, 0);
        vertices_.clear();
    }

private:
    // The pin, in texels.
    static SDL_FPoint pin(const sprite &sprite)
    {
        return {scale * (sprite.at.x + sprite.pin.x), scale * (sprite.at.y + sprite.pin.y)};
    }

    std::vector<SDL_Vertex> vertices_;
};
