using System;

namespace Dwf
{
    /// <summary>A call failed; the message says what, where, and what to do.</summary>
    public sealed class DwfException : Exception
    {
        /// <summary>The kind of failure.</summary>
        public Status Status { get; }

        internal DwfException(Status status, string message) : base(message) => Status = status;

        internal static unsafe void Check(Status status, byte* err)
        {
            if (status != Status.Ok)
                throw new DwfException(status, Native.Text(err));
        }
    }
}
