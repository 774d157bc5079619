// What the test programs share. One that finds everything in order prints nothing.

#ifndef CHECK_HPP
#define CHECK_HPP

#include <cstdio>
#include <cstdlib>
#include <string>

#define CHECK(condition) \
    ((condition) ? static_cast<void>(0) : check_failed(__FILE__, __LINE__, #condition))

[[noreturn]] inline void check_failed(const char *file, int line, const char *what)
{
    std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    std::exit(1);
}

inline bool contains(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

#endif
