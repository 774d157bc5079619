using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Dwf
{
    /// <summary>A call's progress callback, and what stopped it.</summary>
    internal sealed class Call
    {
        // Static, so that the collector never takes it while C holds its address, and since IL2CPP
        // makes function pointers of static methods only.
        private static readonly Native.ProgressCallback Callback = OnProgress;

        internal static readonly IntPtr Function = Marshal.GetFunctionPointerForDelegate(Callback);

        private readonly Action<long, long> progress;
        private readonly CancellationToken token;
        private ExceptionDispatchInfo thrown;

        internal Call(Action<long, long> progress, CancellationToken token)
        {
            this.progress = progress;
            this.token = token;
        }

        internal bool Watched => progress != null || token.CanBeCanceled;

        internal unsafe void Check(Status status, byte* err)
        {
            thrown?.Throw();
            if (status == Status.Cancelled)
                throw new OperationCanceledException("cancelled by its token", token);
            DwfException.Check(status, err);
        }

        [MonoPInvokeCallback(typeof(Native.ProgressCallback))]
        private static int OnProgress(IntPtr user, ulong done, ulong total)
        {
            var call = (Call)GCHandle.FromIntPtr(user).Target;
            return call.GoesOn((long)done, (long)total) ? 0 : 1;
        }

        /// <summary>Exceptions must not unwind C frames: Check throws them again.</summary>
        private bool GoesOn(long done, long total)
        {
            try
            {
                progress?.Invoke(done, total);
                return !token.IsCancellationRequested;
            }
            catch (Exception e)
            {
                thrown = ExceptionDispatchInfo.Capture(e);
                return false;
            }
        }
    }
}
