// In place of the script of the theme, 1.5 MB that draw icons: here they are letters of its fonts.
