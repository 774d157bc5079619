using System;
using System.Runtime.InteropServices;

namespace Dwf
{
    /// <summary>libdwf itself.</summary>
    public static unsafe class Library
    {
        // Static: see Call.
        private static readonly Native.LogCallback Callback = OnMessage;
        private static readonly IntPtr Function = Marshal.GetFunctionPointerForDelegate(Callback);

        private static volatile Action<LogLevel, string> log;

        // Unity's editor reloads the domain, and with it this code, under a library that stays.
        static Library() => AppDomain.CurrentDomain.DomainUnload += (s, e) => SetLog(null);

        /// <summary>The library's version, "0.1.0" say.</summary>
        public static string Version => Native.Text(Native.dwf_version());

        /// <summary>
        /// Sends log messages up to `level` to `sink`, process-wide; null silences the library,
        /// which is its default. When this returns, the previous sink is not running and will not
        /// be called again.
        /// </summary>
        /// <remarks>
        /// The sink is called on any thread, must not call SetLog, and has nobody to throw to:
        /// its exceptions are dropped.
        /// </remarks>
        /// <exception cref="ArgumentOutOfRangeException">
        /// There is no such level; the previous sink stays.
        /// </exception>
        public static void SetLog(Action<LogLevel, string> sink, LogLevel level = LogLevel.Info)
        {
            if (!Enum.IsDefined(typeof(LogLevel), level))
                throw new ArgumentOutOfRangeException(nameof(level), level, "is no level");
            lock (Callback)
            {
                Native.dwf_set_log(IntPtr.Zero, IntPtr.Zero, level);
                log = sink;
                if (sink != null)
                    Native.dwf_set_log(Function, IntPtr.Zero, level);
            }
        }

        [MonoPInvokeCallback(typeof(Native.LogCallback))]
        private static void OnMessage(IntPtr user, uint level, IntPtr message)
        {
            try
            {
                log((LogLevel)level, Marshal.PtrToStringUTF8(message));
            }
            catch (Exception)
            {
                // It must not unwind C frames.
            }
        }
    }
}
