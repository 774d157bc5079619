// Antialiased shapes and text, gathered into one batch of triangles.
#pragma once

#include <SDL.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "font.hpp"

class canvas {
public:
    // A disc of radius r.
    void disc(SDL_FPoint centre, float r, SDL_Color colour) { line(centre, centre, 2 * r, colour); }

    // A line with round ends.
    void line(SDL_FPoint a, SDL_FPoint b, float width, SDL_Color colour)
    {
        outline_.clear();
        const float along = std::atan2(b.y - a.y, b.x - a.x);
        arc(b, width / 2, along - quarter, along + quarter);
        arc(a, width / 2, along + quarter, along + 3 * quarter);
        fill(colour);
    }

    // A rectangle with round corners.
    void box(SDL_FRect at, float r, SDL_Color colour)
    {
        outline_.clear();
        const float left = at.x + r, right = at.x + at.w - r;
        const float top = at.y + r, bottom = at.y + at.h - r;
        arc({right, bottom}, r, 0, quarter);
        arc({left, bottom}, r, quarter, 2 * quarter);
        arc({left, top}, r, 2 * quarter, 3 * quarter);
        arc({right, top}, r, 3 * quarter, 4 * quarter);
        fill(colour);
    }

    // Text whose baseline begins at `at`; `size` is the height of its digits.
    void text(std::string_view letters, SDL_FPoint at, float size, SDL_Color colour)
    {
        const float unit = size / 6, pen = std::max(1.2f, 0.75f * unit);
        for (const char letter : letters) {
            const glyph *glyph = find(letter);
            if (glyph)
                draw(*glyph, at, unit, pen, colour);
            at.x += advance(glyph) * unit;
        }
    }

    static float text_width(std::string_view letters, float size)
    {
        float width = 0;
        for (const char letter : letters)
            width += advance(find(letter)) * size / 6;
        return width;
    }

    // Draws what was gathered.
    void flush(SDL_Renderer *renderer)
    {
        SDL_RenderGeometry(renderer, nullptr, vertices_.data(), static_cast<int>(vertices_.size()),
                           indices_.data(), static_cast<int>(indices_.size()));
        vertices_.clear();
        indices_.clear();
    }

private:
    static constexpr float quarter = 1.57079633f;

    static const glyph *find(char letter)
    {
        const auto is = [letter](const glyph &glyph) { return glyph.letter == letter; };
        const auto *found = std::find_if(std::begin(font), std::end(font), is);
        return found == std::end(font) ? nullptr : found;
    }

    // A letter's width with the gap after it; a space's where there is none.
    static float advance(const glyph *glyph)
    {
        return glyph ? static_cast<float>(glyph->width) + 1.9f : 3.2f;
    }

    void draw(const glyph &glyph, SDL_FPoint at, float unit, float pen, SDL_Color colour)
    {
        const auto point = [&](const char *stroke) {
            return SDL_FPoint{at.x + unit * static_cast<float>(stroke[0] - '0'),
                              at.y - unit * static_cast<float>(stroke[1] - '2')};
        };
        for (const char *stroke = glyph.strokes; *stroke; stroke += 2) {
            if (*stroke == ' ')
                stroke++;
            if (stroke[2] && stroke[2] != ' ')
                line(point(stroke), point(stroke + 2), pen, colour);
        }
    }

    void arc(SDL_FPoint centre, float r, float from, float to)
    {
        // Half circles of the thinnest pens need two.
        const int steps = r < 1 ? 2 : r < 4 ? 3 : 6;
        for (int i = 0; i <= steps; i++) {
            const float share = static_cast<float>(i) / static_cast<float>(steps);
            const float angle = from + (to - from) * share;
            outline_.push_back({{centre.x + r * std::cos(angle), centre.y + r * std::sin(angle)},
                                {std::cos(angle), std::sin(angle)}});
        }
    }

    // The convex outline, with a rim of one pixel over which the colour fades out.
    void fill(SDL_Color colour)
    {
        const SDL_Color clear{colour.r, colour.g, colour.b, 0};
        const int first = static_cast<int>(vertices_.size());
        const int n = static_cast<int>(outline_.size());
        for (const auto &[at, normal] : outline_) {
            const SDL_FPoint half{normal.x / 2, normal.y / 2};
            vertices_.push_back({{at.x - half.x, at.y - half.y}, colour, {0, 0}});
            vertices_.push_back({{at.x + half.x, at.y + half.y}, clear, {0, 0}});
        }
        for (int i = 0; i < n; i++) {
            const int a = first + 2 * i, b = first + 2 * ((i + 1) % n);
            indices_.insert(indices_.end(), {a, a + 1, b, b, a + 1, b + 1});
            if (a != first && b != first)
                indices_.insert(indices_.end(), {first, a, b});
        }
    }

    struct corner {
        SDL_FPoint at, normal;
    };

    std::vector<corner> outline_;
    std::vector<SDL_Vertex> vertices_;
    std::vector<int> indices_;
};
