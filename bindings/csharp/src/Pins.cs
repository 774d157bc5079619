using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Dwf
{
    /// <summary>Arrays that stay where they are until Dispose.</summary>
    internal sealed class Pins : IDisposable
    {
        private readonly List<GCHandle> handles = new List<GCHandle>();

        internal IntPtr Add(Array array)
        {
            var pin = GCHandle.Alloc(array, GCHandleType.Pinned);
            handles.Add(pin);
            return pin.AddrOfPinnedObject();
        }

        public void Dispose()
        {
            foreach (var pin in handles)
                pin.Free();
        }
    }
}
