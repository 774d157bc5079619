using System;

namespace Dwf
{
    /// <summary>What went wrong, as <see cref="DwfException.Status"/> says it.</summary>
    public enum Status
    {
        /// <summary>Success.</summary>
        Ok = 0,
        /// <summary>An argument or option is not valid.</summary>
        InvalidArgument = 1,
        /// <summary>A file could not be opened, mapped or read.</summary>
        Io = 2,
        /// <summary>The artifact's files are damaged, do not belong together, or are none.</summary>
        BadArtifact = 3,
        /// <summary>A valid request that this build, device or format version cannot serve.</summary>
        Unsupported = 4,
        /// <summary>ONNX Runtime was not found, is too old, or lacks the provider.</summary>
        RuntimeMissing = 5,
        /// <summary>Memory could not be allocated.</summary>
        OutOfMemory = 6,
        /// <summary>The output is smaller than the networks that were asked for.</summary>
        BufferTooSmall = 7,
        /// <summary>A network became NaN or infinite; the message names it.</summary>
        Diverged = 8,
        /// <summary>Cancelled: thrown as <see cref="OperationCanceledException"/>.</summary>
        Cancelled = 9,
        /// <summary>The sampler is in use by another thread.</summary>
        Busy = 10,
        /// <summary>A bug in libdwf; the object it happened on can only be disposed.</summary>
        Internal = 11,
        /// <summary>ONNX Runtime refused the velocity network or failed while running it.</summary>
        RuntimeFailed = 12,
    }

    /// <summary>Element type of a tensor.</summary>
    public enum DType : uint
    {
        /// <summary>IEEE 754 binary32.</summary>
        F32 = 0,
        /// <summary>IEEE 754 binary16.</summary>
        F16 = 1,
        /// <summary>bfloat16.</summary>
        BF16 = 2,
    }

    /// <summary>Where networks are generated.</summary>
    public enum Device : uint
    {
        /// <summary>The best that works.</summary>
        Auto = 0,
        /// <summary>The processor.</summary>
        Cpu = 1,
        /// <summary>An NVIDIA GPU.</summary>
        Cuda = 2,
    }

    /// <summary>Integrates the flow from noise to weights.</summary>
    public enum Solver : uint
    {
        /// <summary>The artifact's own.</summary>
        Default = 0,
        /// <summary>1 evaluation a step.</summary>
        Euler = 1,
        /// <summary>Explicit midpoint, 2 evaluations a step.</summary>
        Midpoint = 2,
        /// <summary>2 evaluations a step.</summary>
        Heun = 3,
        /// <summary>Classical Runge-Kutta, 4 evaluations a step.</summary>
        Rk4 = 4,
        /// <summary>Dormand-Prince 5(4), steps chosen for every network.</summary>
        Dopri5 = 5,
    }

    /// <summary>Spaces a solver's steps.</summary>
    public enum Grid : uint
    {
        /// <summary>The artifact's own.</summary>
        Default = 0,
        /// <summary>Equal steps in time.</summary>
        Uniform = 1,
        /// <summary>Steps that grow with time, for a narrow source.</summary>
        Stretched = 2,
    }

    /// <summary>Turns a latent vector into weights.</summary>
    public enum Basis : uint
    {
        /// <summary>weights = latent.</summary>
        Identity = 1,
        /// <summary>weights = mean + scale * latent, coordinate by coordinate.</summary>
        Diagonal = 2,
        /// <summary>weights = mean + (scale * latent) components.</summary>
        Linear = 3,
    }

    /// <summary>What a network does with a tensor.</summary>
    public enum TensorKind : uint
    {
        /// <summary>Trained by gradient.</summary>
        Parameter = 0,
        /// <summary>Kept by the network, a running mean say.</summary>
        Buffer = 1,
    }

    /// <summary>Weight of a log message.</summary>
    public enum LogLevel : uint
    {
        /// <summary>A call is about to fail.</summary>
        Error = 1,
        /// <summary>It works, but not as well as it could.</summary>
        Warn = 2,
        /// <summary>What was found and chosen.</summary>
        Info = 3,
        /// <summary>Everything.</summary>
        Debug = 4,
    }

    /// <summary>How to open an artifact.</summary>
    [Flags]
    public enum OpenOptions
    {
        /// <summary>Map the sidecar, trust its content.</summary>
        None = 0,
        /// <summary>
        /// Read the sidecar into memory instead of mapping it. A mapped file that another process
        /// truncates kills this process at the next access; a copy does not care.
        /// </summary>
        Copy = 1,
        /// <summary>
        /// Compare the sidecar with the SHA-256 that the artifact carries; reads all of it.
        /// </summary>
        Verify = 2,
    }
}
