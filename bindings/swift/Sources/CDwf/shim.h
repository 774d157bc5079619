/* pkg-config says where dwf.h lies; a module map cannot. */
#include <dwf.h>
