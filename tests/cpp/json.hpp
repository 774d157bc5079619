// As much JSON as the conformance cases are written in: no \u escapes.

#ifndef JSON_HPP
#define JSON_HPP

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "check.hpp"

class json {
public:
    using array = std::vector<json>;
    using object = std::map<std::string, json>;

    static json parse(const std::string &text)
    {
        const char *at = text.c_str();
        json value = read(at);
        CHECK(peek(at) == 0);
        return value;
    }

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
    bool truth() const { return std::get<bool>(value_); }
    double number() const { return std::strtod(std::get<literal>(value_).text.c_str(), nullptr); }
    /// All 64 bits of it, which a double has not.
    std::uint64_t integer() const
    {
        return std::strtoull(std::get<literal>(value_).text.c_str(), nullptr, 10);
    }
    const std::string &text() const & { return std::get<std::string>(value_); }
    const array &items() const & { return std::get<array>(value_); }
    const object &members() const & { return std::get<object>(value_); }

    bool has(const std::string &key) const { return members().count(key) == 1; }
    const json &operator[](const std::string &key) const & { return members().at(key); }

    /// Members that may be missing.
    std::uint64_t integer(const std::string &key, std::uint64_t otherwise) const
    {
        return has(key) ? (*this)[key].integer() : otherwise;
    }
    double number(const std::string &key, double otherwise) const
    {
        return has(key) ? (*this)[key].number() : otherwise;
    }
    std::string text(const std::string &key, const std::string &otherwise) const
    {
        return has(key) ? (*this)[key].text() : otherwise;
    }
    json member(const std::string &key) const { return has(key) ? (*this)[key] : json(object()); }

private:
    /// A number as it is written.
    struct literal {
        std::string text;
    };
    using variant = std::variant<std::nullptr_t, bool, literal, std::string, array, object>;

    explicit json(variant value) : value_(std::move(value)) {}

    static char peek(const char *&at)
    {
        while (*at == ' ' || *at == '\n')
            at++;
        return *at;
    }

    static bool skip(const char *&at, char c)
    {
        const bool found = peek(at) == c;
        at += found;
        return found;
    }

    static bool skip_word(const char *&at, const std::string &word)
    {
        const bool found = std::string(at).compare(0, word.size(), word) == 0;
        at += found ? word.size() : 0;
        return found;
    }

    static json read(const char *&at)
    {
        switch (peek(at)) {
        case '{':
            return read_object(at);
        case '[':
            return read_array(at);
        case '"':
            return json(read_text(at));
        case 't':
        case 'f':
        case 'n':
            return read_word(at);
        default:
            return read_number(at);
        }
    }

    static json read_object(const char *&at)
    {
        object members;
        for (skip(at, '{'); !skip(at, '}'); skip(at, ',')) {
            CHECK(peek(at) == '"');
            std::string key = read_text(at);
            CHECK(skip(at, ':'));
            members.emplace(std::move(key), read(at));
        }
        return json(members);
    }

    static json read_array(const char *&at)
    {
        array items;
        for (skip(at, '['); !skip(at, ']'); skip(at, ','))
            items.push_back(read(at));
        return json(items);
    }

    static std::string read_text(const char *&at)
    {
        std::string text;
        for (at++; *at != '"'; at++) {
            if (*at == '\\')
                CHECK(*++at != 'u');
            CHECK(*at);
            text += *at;
        }
        at++;
        return text;
    }

    static json read_word(const char *&at)
    {
        if (skip_word(at, "true"))
            return json(true);
        if (skip_word(at, "false"))
            return json(false);
        CHECK(skip_word(at, "null"));
        return json(nullptr);
    }

    static json read_number(const char *&at)
    {
        char *end = nullptr;
        static_cast<void>(std::strtod(at, &end));
        CHECK(end != at);
        literal number{std::string(at, static_cast<const char *>(end))};
        at = end;
        return json(std::move(number));
    }

    variant value_;
};

#endif
