// variants FOLDER: all variants of the header in one program, as where libraries meet.

#include <string>

int cpp17(const std::string &folder);
int cpp17_results(const std::string &folder);
int cpp20(const std::string &folder);
int cpp20_results(const std::string &folder);

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const std::string folder = argv[1];
    const int ran = cpp17(folder) + cpp17_results(folder) + cpp20(folder) + cpp20_results(folder);
    return ran == 4 ? 0 : 1;
}
